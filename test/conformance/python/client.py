"""Drives the Workload API with py-spiffe, unmodified, and says what it saw as one JSON line for each event.

    client.py x509 SOCKET            an X.509 source
    client.py jwt SOCKET AUDIENCE    a JWT source, and validation by the agent
    client.py watch SOCKET COUNT     X.509 contexts until COUNT have come
"""

import json
import sys
import threading

from spiffe import JwtSource, WorkloadApiClient, X509Source


def say(**event):
    print(json.dumps(event), flush=True)


def describe(svid):
    return {"id": str(svid.spiffe_id), "serial": str(svid.leaf.serial_number)}


def main():
    command, endpoint = sys.argv[1], "unix://" + sys.argv[2]
    if command == "x509":
        with X509Source(socket_path=endpoint, timeout_in_seconds=20) as source:
            say(event="x509", svids=[describe(source.get_x509_context().default_svid)], domains=len(source.bundles))
    elif command == "jwt":
        audience = sys.argv[3]
        with JwtSource(socket_path=endpoint, timeout_in_seconds=20) as source:
            svid = source.fetch_svid(audience={audience})
            with WorkloadApiClient(socket_path=endpoint) as client:
                remote = client.validate_jwt_svid(svid.token, audience, timeout=20)
            say(event="jwt", id=str(svid.spiffe_id), remote=str(remote.spiffe_id), audience=sorted(svid.audience))
    elif command == "watch":
        seen, enough = [], threading.Event()

        def updated(context):
            seen.append(context)
            say(event="x509", svids=[describe(svid) for svid in context.x509_svids])
            if len(seen) == int(sys.argv[3]):
                enough.set()

        with WorkloadApiClient(socket_path=endpoint) as client:
            stream = client.stream_x509_contexts(updated, lambda error: say(event="watch-error", message=str(error)))
            enough.wait(60)
            stream.cancel()


try:
    main()
except Exception as error:  # the harness reads what went wrong
    say(event="error", kind=type(error).__name__, message=str(error))
    sys.exit(1)
