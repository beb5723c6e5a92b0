"""Calls a node the way a program that knows nothing of aegis would: grpcio and PEM files.

usage: foreign.py HOST:PORT NODE_ID CA.pem [CERTIFICATE.pem KEY.pem]

Prints one line per call: its name, then the answer's fields by number as JSON,
or the code and the text of the failure.
"""

import json
import sys

import grpc

SECONDS = 10


def text(number, value):
    """A string field, encoded."""
    data = value.encode()
    return bytes([number << 3 | 2, len(data)]) + data


def decode(data):
    """The fields of a message by number; good for strings, booleans and integers."""
    fields, at = {}, 0

    def varint():
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        value = varint()
        if key & 7 == 2:
            value, at = data[at : at + value].decode(), at + value
        fields[key >> 3] = value
    return fields


def main(address, node_id, ca, certificate=None, key=None):
    def read(path):
        with open(path, "rb") as file:
            return file.read()

    credentials = grpc.ssl_channel_credentials(
        root_certificates=read(ca),
        private_key=key and read(key),
        certificate_chain=certificate and read(certificate),
    )
    # The name that the server's certificate has to be good for: the node's id.
    options = [("grpc.ssl_target_name_override", node_id)]
    with grpc.secure_channel(address, credentials, options) as channel:

        def call(path, request):
            try:
                answer = channel.unary_unary(path)(request, timeout=SECONDS)
                print(path, json.dumps(decode(answer), sort_keys=True))
            except grpc.RpcError as error:
                print(path, error.code().name, error.details())

        call("/aegis.identity.v1.IdentityService/ValidateSession", text(1, "user-7"))
        call("/aegis.identity.v1.IdentityService/GetUser", text(1, "7"))
        call("/aegis.identity.v1.IdentityService/Unheard", b"")
        call("/grpc.health.v1.Health/Check", b"")
        call("/grpc.health.v1.Health/Check", text(1, "aegis.identity.v1.IdentityService"))
        call("/grpc.health.v1.Health/Check", text(1, "nobody.knows.Me"))
        call("/aegis.MeshService/Ping", text(1, "vicky-1"))


main(*sys.argv[1:])
