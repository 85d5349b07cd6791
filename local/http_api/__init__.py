"""API Gateway's HTTP API: routes, CORS, and requests as events of functions."""
