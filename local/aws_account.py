"""The AWS account that a local run stands for: what templates, events, clients and servers say of it."""

ACCOUNT_ID = "123456789012"
REGION = "us-east-1"
ACCESS_KEY, SECRET_KEY = "local", "localsecret"


def function_arn(name: str) -> str:
    """The ARN under which a function of the local run is known."""
    return f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{name}"
