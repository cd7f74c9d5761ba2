"""The same door for nginx: for sites with more devices than one Python process should answer."""

from __future__ import annotations

from string import Template

from fedrec.deploy.certificates import CA, SERVER, SERVER_KEY
from fedrec.deploy.paths import ENROL, ENROL_BYTES, FLEET, FLEET_HEADERS, LOOK
from fedrec.deploy.site import Site


class _Form(Template):
    delimiter = "@"  # nginx has the dollar for itself


_FORM = _Form(r"""# The door of a fedrec site; it belongs inside `http { }`, as /etc/nginx/conf.d/fedrec.conf.
# Set `front = "nginx"` in server.toml, so that our own door leaves the port to nginx.

# The raw request line decides, before nginx decodes, merges or resolves anything in it.
map "$request_method $request_uri" $fedrec_known {
    default 0;
    "~^@{fleet}$" 1;
    "~^@{enrol}$" 1;
    "~^@{look}$" 1;
}
upstream fedrec_superlink {
    server 127.0.0.1:@{superlink};
    keepalive 32;
    keepalive_timeout 4s;  # a SuperLink hangs up after 5
}
limit_conn_zone $binary_remote_addr zone=fedrec_each:10m;
limit_conn_zone $server_name zone=fedrec_all:1m;
limit_req_zone $binary_remote_addr zone=fedrec_enrol:10m rate=60r/m;

server {
    listen @{listen} ssl backlog=1024;
    server_name fedrec;
    server_tokens off;

    # Who asked, and when, is nobody's business; nginx would write addresses into both.
    access_log off;
    error_log /dev/null crit;

    ssl_certificate @{keys}/@{server};
    ssl_certificate_key @{keys}/@{server_key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_tickets off;

    client_header_timeout 20s;
    client_body_timeout 90s;
    send_timeout 90s;
    keepalive_timeout 75s;
    reset_timedout_connection on;
    client_header_buffer_size 2k;
    large_client_header_buffers 4 8k;
    client_max_body_size @{request_bytes};
    limit_conn fedrec_each @{each};
    limit_conn fedrec_all @{all};

    proxy_http_version 1.1;
    proxy_pass_request_headers off;
    proxy_redirect off;
    proxy_next_upstream off;
    proxy_connect_timeout 10s;

    # A length is said once, or there is no body.
    if ($http_transfer_encoding) { return 400; }
    if ($fedrec_known = 0) { return 404; }

    location / { return 404; }

    location /v1/fleet/ {
        proxy_pass https://fedrec_superlink;
        proxy_read_timeout 120s;
        proxy_ssl_verify on;
        proxy_ssl_name localhost;  # nginx compares names, never addresses
        proxy_ssl_trusted_certificate @{keys}/@{ca};
        proxy_ssl_protocols TLSv1.2 TLSv1.3;
        proxy_set_header Host 127.0.0.1;
        proxy_set_header Connection "";
@{headers}
        proxy_hide_header Server;
    }

    location = /fedrec/v1/enrol {
        client_max_body_size @{enrol_bytes};
        limit_req zone=fedrec_enrol burst=60 nodelay;
        proxy_pass http://127.0.0.1:@{desk};
        proxy_set_header Host 127.0.0.1;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header Content-Type $http_content_type;
    }

    location /fedrec/v1/ {
        proxy_pass http://127.0.0.1:@{desk};
        proxy_read_timeout 60s;
        proxy_set_header Host 127.0.0.1;
        proxy_set_header X-Forwarded-For $remote_addr;
    }
}
""")


def config(site: Site) -> str:
    """What nginx is told to be the site's door."""
    spec = site.spec
    named = [(name, name.replace("-", "_")) for name in FLEET_HEADERS]
    return _FORM.substitute(
        fleet=FLEET,
        enrol=ENROL,
        look=LOOK,
        listen=f"[{spec.bind}]:{spec.port} ipv6only=off" if ":" in spec.bind else f"{spec.bind}:{spec.port}",
        superlink=spec.superlink,
        desk=spec.desk,
        keys=site.keys.absolute(),
        ca=CA,
        server=SERVER,
        server_key=SERVER_KEY,
        request_bytes=spec.request_bytes,
        enrol_bytes=ENROL_BYTES,
        all=spec.connections,
        each=spec.connections_per_address,
        headers="\n".join(f"        proxy_set_header {name} $http_{variable};" for name, variable in named),
    )
