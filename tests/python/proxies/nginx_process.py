"""A real nginx, as any user, in a directory of its own, with a certificate that was made for it."""

from __future__ import annotations

import datetime
import ipaddress
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server_process import free_port

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
DEPLOYING = Path(__file__).parents[3] / "docs" / "deploying.md"

MAIN = """\
daemon off;
master_process off;
error_log stderr warn;
pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_cache_path {folder}/cache keys_zone=cache:1m;
    {servers}
}}
"""

TLS = """\
server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
    {server}
    location / {{
        proxy_pass http://127.0.0.1:{behind};
        {location}
    }}
}}
"""

PLAIN = """\
server {{
    listen 127.0.0.1:{port};
    location / {{
        proxy_pass http://127.0.0.1:{behind};
        {location}
    }}
}}
"""


def documented() -> str:
    """The server block of docs/deploying.md."""
    (block,) = re.findall(r"```nginx\n(.*?)```", DEPLOYING.read_text("utf-8"), re.DOTALL)
    return block


class Nginx:
    """Collects server blocks, then serves them until ``stop``. ``certificate`` is what clients must trust."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.certificate = folder / "cert.pem"
        self._folder = folder
        self._servers: list[str] = []
        self._ports: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        _make_certificate(self.certificate, folder / "key.pem")

    def before(self, behind: int, location: str = "", *, server: str = "", tls: bool = True) -> int:
        """A server block before the port ``behind``, and the port that it listens on."""
        template = TLS if tls else PLAIN
        port = self._port()
        self._servers.append(
            template.format(port=port, folder=self._folder, behind=behind, server=server, location=location)
        )
        return port

    def as_documented(self, behind: int) -> int:
        """The one of the docs, with nothing changed but where it listens, its certificate and what is behind it."""
        port, text = self._port(), documented()
        for old, new in (
            ("listen 443 ssl http2", f"listen 127.0.0.1:{port} ssl http2"),
            ("/etc/ssl/chat.example.com.pem", str(self.certificate)),
            ("/etc/ssl/chat.example.com.key", str(self._folder / "key.pem")),
            ("http://127.0.0.1:8000", f"http://127.0.0.1:{behind}"),
        ):
            assert text.count(old) == 1, f"{old} in docs/deploying.md"
            text = text.replace(old, new)
        self._servers.append(text)
        return port

    def start(self) -> None:
        config = self._folder / "nginx.conf"
        config.write_text(MAIN.format(folder=self._folder, servers="\n".join(self._servers)))
        log = self._folder / "error.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen([NGINX, "-p", str(self._folder), "-c", str(config)], stderr=output)
        deadline = time.monotonic() + 20
        for port in self._ports:
            while True:
                assert self._process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _port(self) -> int:
        self._ports.append(free_port())
        return self._ports[-1]


def _make_certificate(certificate: Path, key_file: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
