"""One machine's Redfish service: the sushy-tools emulator with a driver that asks the lab.

Run as `redfish.py FOLDER` with a listening socket as standard input. The folder has `config.json` (name, user,
password, ask: the command that asks the lab, see ask.pl) and is closed to others.
"""

import json
import os
import socket
import subprocess
import sys
import uuid

import bcrypt
from sushy_tools import error
from sushy_tools.emulator import main as emulator
from sushy_tools.emulator.resources.systems.base import AbstractSystemsDriver
from werkzeug.serving import make_server

FOLDER = sys.argv[1]
with open(os.path.join(FOLDER, "config.json")) as file:
    CONFIG = json.load(file)


def ask(*words):
    """What the lab says; an error of the service when it does not."""
    done = subprocess.run(CONFIG["ask"] + list(words), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise error.FishyError(done.stderr.strip() or "the lab does not answer")
    return done.stdout.strip()


class Lab(AbstractSystemsDriver):
    """The one machine behind this service."""

    UUID = str(uuid.uuid5(uuid.NAMESPACE_DNS, CONFIG["name"]))
    # Some clients use words that the emulator does not advertise.
    RESETS = {
        "On", "ForceOn", "ForceOff", "GracefulShutdown", "GracefulRestart", "ForceRestart", "Nmi", "PowerCycle",
        "PushPowerButton",
    }

    @classmethod
    def initialize(cls, config, logger, *args, **kwargs):
        super().initialize(config, logger)
        return cls

    @property
    def driver(self):
        return "<lab>"

    @property
    def systems(self):
        return [self.UUID]

    def uuid(self, identity):
        if identity not in (self.UUID, CONFIG["name"]):
            raise error.NotFound()
        return self.UUID

    def name(self, identity):
        self.uuid(identity)
        return CONFIG["name"]

    def get_power_state(self, identity):
        self.uuid(identity)
        return ask("state")

    def set_power_state(self, identity, state):
        self.uuid(identity)
        if state not in self.RESETS:
            raise error.BadRequest(f"unknown ResetType {state!r}")
        ask("reset", state)

    def get_boot_device(self, identity):
        self.uuid(identity)
        return ask("boot")

    def set_boot_device(self, identity, boot_source):
        self.uuid(identity)
        ask("boot", str(boot_source))


class Door:
    """Takes the login away from everybody while the lab wants nobody let in."""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        try:
            refuses = ask("door") != "open"
        except error.FishyError:
            refuses = True
        if refuses:
            environ.pop("HTTP_AUTHORIZATION", None)
        return self.app(environ, start_response)


def serve():
    path = os.path.join(FOLDER, "auth")
    secret = CONFIG["password"].encode()
    # Few rounds: this guards a test, and every request pays for it.
    digest = bcrypt.hashpw(secret, bcrypt.gensalt(rounds=4)).decode()
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(f"{CONFIG['user']}:{digest}\n")
    # It has no plug-ins: its fake driver becomes ours.
    emulator.fakedriver.FakeDriver = Lab
    emulator.app.configure(extra_config={
        "SUSHY_EMULATOR_FAKE_DRIVER": True,
        "SUSHY_EMULATOR_AUTH_FILE": path,
        "SUSHY_EMULATOR_FEATURE_SET": "minimum",
        "SUSHY_EMULATOR_STATE_DIR": FOLDER,
    })
    emulator.app.wsgi_app = Door(emulator.app.wsgi_app)
    host, port = socket.socket(fileno=os.dup(0)).getsockname()[:2]
    make_server(host, port, emulator.app, threaded=True, fd=0).serve_forever()


serve()
