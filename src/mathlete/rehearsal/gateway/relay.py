"""The two ends of the wire: the notebook's one-thread server and the gateway's client with its deadlines."""

import json
import socket
import time
from collections.abc import Callable
from concurrent import futures
from types import FunctionType, MethodType
from typing import TYPE_CHECKING

import grpc

from mathlete.rehearsal.gateway.behaviours import Behaviour, Package
from mathlete.rehearsal.gateway.wire import SERVICE, Request, Response, deserialize, serialize

if TYPE_CHECKING:
    from google.protobuf.message import Message

_RETRY = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.service_config", json.dumps(_RETRY)),
)


class GRPCDeadlineError(Exception):
    """A call took longer than the deadline. It has no text, as in the real package."""


class ServerDiedError(Exception):
    """The notebook's container went away before its server answered (from 1.4.0 on)."""


def define_server(*listeners: Callable[..., object], package: Package) -> tuple[grpc.Server, int]:
    """Return a server for named functions with one worker thread, not yet started, and its port, the first free one.

    Raises:
        ValueError: there is no listener, one may not be a listener, or two have one name.
        RuntimeError: the port is taken (0.3.0).
    """
    if not listeners:
        raise ValueError("Must pass at least one endpoint listener, e.g. `predict`")
    for listener in listeners:
        _check_listener(listener, package)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1), options=_OPTIONS)
    handler = grpc.unary_unary_rpc_method_handler(
        _answer(_name_listeners(listeners), package),
        request_deserializer=Request.FromString,
        response_serializer=Response.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Send": handler}),))
    # Bound here and not when it starts: whoever comes later finds the port taken.
    port = _free_port(package.ports)
    server.add_insecure_port(f"[::]:{port}")
    return server, port


def _check_listener(listener: Callable[..., object], package: Package) -> None:
    kinds = {"functions": FunctionType, "functions and methods": FunctionType | MethodType}.get(package.listeners)
    if kinds is not None and not isinstance(listener, kinds):
        raise ValueError(f"Endpoint listeners passed to `serve` must be {package.listeners}, got {type(listener)}")
    if not callable(listener):
        raise ValueError("Endpoint listeners passed to `serve` must be functions")
    if listener.__name__ == "<lambda>":
        raise ValueError("Functions passed as endpoint listeners must be named")


def _name_listeners(listeners: tuple[Callable[..., object], ...]) -> dict[str, Callable[..., object]]:
    """Return the listeners by name; a bound method has two, `Class.method` and `method`."""
    named = dict[str, Callable[..., object]]()
    for listener in listeners:
        name = listener.__name__
        if isinstance(listener, MethodType):
            named[f"{type(listener.__self__).__name__}.{name}"] = listener
            if name in named:
                raise ValueError(f"Endpoint '{name}' is already registered.")
        named[name] = listener
    return named


def _answer(
    listeners: dict[str, Callable[..., object]], package: Package
) -> "Callable[[Message, grpc.ServicerContext], Message]":
    def send(request: "Message", context: grpc.ServicerContext) -> "Message":
        if request.name not in listeners:
            raise NotImplementedError(f"No listener for {request.name} was registered.")
        arguments = map(deserialize, request.args)
        named = {key: deserialize(value) for key, value in request.kwargs.items()}
        return Response(payload=serialize(listeners[request.name](*arguments, **named), package=package))

    return send


def _free_port(ports: tuple[int, ...]) -> int:
    if len(ports) == 1:
        return ports[0]
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
            try:
                tried.bind(("localhost", port))
            except OSError:
                continue
        return port
    raise ValueError(f"None of the expected ports {list(ports)} are available.")


class Client:
    """The gateway's end. Its first call waits for the server to come up, and has no deadline."""

    def __init__(
        self,
        host: str,
        *,
        ports: tuple[int, ...],
        behaviour: Behaviour,
        resolve: Callable[[str], object] = socket.gethostbyname,
    ) -> None:
        """Take the host and the ports to try on it.

        `resolve` looks the host up between tries, and raises once the notebook's container is gone.
        """
        self._host, self._ports, self._behaviour, self._resolve = host, ports, behaviour, resolve
        self._resolved = False
        self._channel: grpc.Channel | None = None
        self._call: Callable[..., Message] | None = None

    def send(self, name: str, *arguments: object) -> object:
        """Call a listener and return its value.

        Raises:
            grpc.RpcError: the listener raised, or the connection broke.
            GRPCDeadlineError: the deadline passed (from 0.7.0 on).
            RuntimeError: the server never came up.
            OSError: the notebook's container went away before its server came up.
            ServerDiedError: it did so after its name had resolved (from 1.4.0 on).
        """
        package = self._behaviour.package
        request = Request(name=name, args=[serialize(argument, package=package) for argument in arguments])
        response = self._ask_first(request) if self._call is None else self._ask_again(request)
        return deserialize(response.payload)

    def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            self._channel.close()

    def _ask_again(self, request: "Message") -> "Message":
        assert self._call is not None
        try:
            return self._call(request, wait_for_ready=False, timeout=self._behaviour.deadline_s)
        except grpc.RpcError as error:
            if self._behaviour.package.deadline_error and "StatusCode.DEADLINE_EXCEEDED" in str(error):
                raise GRPCDeadlineError from error
            raise

    def _ask_first(self, request: "Message") -> "Message":
        began, pause_s = time.monotonic(), 1 / len(self._behaviour.package.ports)
        while time.monotonic() - began < self._behaviour.startup_s:
            for port in self._ports:
                call = self._dial(port)
                try:
                    response = call(request, wait_for_ready=False)
                except grpc.RpcError as error:
                    if "StatusCode.UNAVAILABLE" not in str(error):
                        raise
                else:
                    self._call = call
                    return response
                self._check_container()
                time.sleep(pause_s)
        raise RuntimeError(f"Failed to connect to server after waiting {self._behaviour.startup_s:g} seconds")

    def _check_container(self) -> None:
        try:
            self._resolve(self._host)
        except socket.gaierror as error:
            if self._resolved and self._behaviour.package.gone == "died":
                text = f"The inference_server container has died after startup, causing: {error}"
                raise ServerDiedError(text) from error
            raise
        self._resolved = True

    def _dial(self, port: int) -> "Callable[..., Message]":
        self.close()
        self._channel = grpc.insecure_channel(f"{self._host}:{port}", options=_OPTIONS)
        call: Callable[..., Message] = self._channel.unary_unary(
            f"/{SERVICE}/Send", request_serializer=Request.SerializeToString, response_deserializer=Response.FromString
        )
        return call
