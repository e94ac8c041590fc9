# Written by the role mlops.mlflow.mlflow; edits are overwritten.
"""Who a user is, for an MLflow server behind a gateway that has asked an identity provider (authorization_function of basic-auth)."""

import hmac
import os
import secrets

from flask import make_response, request
from mlflow.exceptions import MlflowException
from mlflow.server import auth
from werkzeug.datastructures import Authorization

USER, SECRET = "X-Forwarded-User", "X-Gateway-Secret"


def from_gateway():
    """Take the user's name from the gateway, which proves by a secret that it is the gateway.

    A user who comes for the first time is made, without rights beyond the default permission, and with a password that nobody knows.

    Returns:
        The user, or a response 401.
    """
    known = os.environ["MLOPS_GATEWAY_SECRET"].encode()
    name = request.headers.get(USER, "")
    if not name or not hmac.compare_digest(request.headers.get(SECRET, "").encode(), known):
        return make_response("Come through the gateway, and sign in there.", 401)
    if not auth.store.has_user(name):
        try:
            auth.store.create_user(name, secrets.token_urlsafe(32))
        except MlflowException:
            # Made meanwhile by another request of the same user.
            if not auth.store.has_user(name):
                raise
    # He may have come before the inventory named him.
    if name == os.environ.get("MLFLOW_AUTH_ADMIN_USERNAME") and not auth.store.get_user(name).is_admin:
        auth.store.update_user(name, is_admin=True)
    return Authorization("basic", {"username": name, "password": ""})
