"""Site Backup: moves the exports of a site's providers into S3, verified end to end."""
