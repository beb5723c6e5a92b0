"""Serves identity/v1 the way a program that knows nothing of aegis would: grpcio and PEM files.

usage: foreign_server.py SECONDS CA.pem CERTIFICATE.pem KEY.pem

Prints the port that it listens on. Its only method is SubscribeSessionEvents, whose first event comes after so many
seconds; as grpcio does it, the headers of the answer go out with it and not before. Ends when its input does.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

# A SessionEvent whose user_id, field 3, is "7".
EVENT = bytes([3 << 3 | 2, 1]) + b"7"


def main(seconds, ca, certificate, key):
    def read(path):
        with open(path, "rb") as file:
            return file.read()

    def subscribe(request, context):
        time.sleep(float(seconds))
        yield EVENT

    server = grpc.server(ThreadPoolExecutor(4))
    methods = {"SubscribeSessionEvents": grpc.unary_stream_rpc_method_handler(subscribe)}
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("aegis.identity.v1.IdentityService", methods)]
    )
    credentials = grpc.ssl_server_credentials(
        [(read(key), read(certificate))], root_certificates=read(ca), require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None)


main(*sys.argv[1:])
