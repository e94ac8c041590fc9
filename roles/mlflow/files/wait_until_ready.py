# Written by the role mlops.mlflow.mlflow; edits are overwritten.
"""Waits until the MLflow server of this unit answers a request that reaches its database.

Runs as ExecStartPost, with the server's environment. /health is no help: it is 200 with the database down.

usage: wait_until_ready.py [CERTIFICATE KEY], the two for a server that speaks TLS and wants to see one
"""

import base64
import os
import ssl
import sys
import time
import urllib.error
import urllib.request


CERTIFICATE = sys.argv[1:]


def request():
    """Build the cheapest request that reads from the database."""
    host = os.environ["MLFLOW_HOST"]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    host = f"[{host}]" if ":" in host else host
    prefix = os.environ.get("MLFLOW_STATIC_PREFIX", "")
    url = f"{'https' if CERTIFICATE else 'http'}://{host}:{os.environ['MLFLOW_PORT']}{prefix}/api/2.0/mlflow/experiments/get?experiment_id=0"
    headers = {}
    if "MLOPS_GATEWAY_SECRET" in os.environ:
        headers = {"X-Forwarded-User": os.environ["MLFLOW_AUTH_ADMIN_USERNAME"], "X-Gateway-Secret": os.environ["MLOPS_GATEWAY_SECRET"]}
    elif "MLFLOW_AUTH_ADMIN_PASSWORD" in os.environ:
        credentials = f"{os.environ['MLFLOW_AUTH_ADMIN_USERNAME']}:{os.environ['MLFLOW_AUTH_ADMIN_PASSWORD']}"
        headers["Authorization"] = "Basic " + base64.b64encode(credentials.encode()).decode()
    return urllib.request.Request(url, headers=headers)


def opener():
    """Return what asks the server; made once, as all this is done many times while the server needs the processor."""
    # Environment proxies are for the way out, not for this host.
    handlers = [urllib.request.ProxyHandler({})]
    if CERTIFICATE:
        # Nobody else has this address, and a certificate of the user's own need not have it.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(*CERTIFICATE)
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)


def ready(way):
    """Tell whether the server answered from its database."""
    try:
        with way.open(request(), timeout=10):
            return True
    except urllib.error.HTTPError as error:
        # 401: the user database was asked, and the administrator's password has been changed since it was written here.
        # 404: the tracking database was asked, and somebody removed its first experiment.
        return error.code in (401, 404)
    except OSError:
        return False


way = opener()
while not ready(way):
    # When the server has died there is nothing to wait for, and systemd is to start it again.
    if not os.path.exists(f"/proc/{os.environ['MAINPID']}"):
        sys.exit("the server ended before it was ready")
    time.sleep(0.2)
