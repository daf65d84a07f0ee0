# SPDX-License-Identifier: ZPL-2.1
"""A program: a real Zope as a WSGI application, called by several threads at once.

Each request puts a job and changes what all others change; a request that the publisher has
given up after its repetitions is sent again, as people do.  Prints what came of it, as JSON.
"""

from __future__ import annotations

import io
import json
import sys
import threading
from typing import Any

import transaction
import Zope2
from zope.component import provideHandler
from Zope2.Startup.run import make_wsgi_app
from ZPublisher.interfaces import IPubFailure

from zasync.interfaces import KEY

repeated: list[Any] = []


def failed(event: Any) -> None:
    if event.retry:
        repeated.append(event.exc_info[0])


def call(app: Any) -> str:
    """One request; answers the status."""
    said: list[str] = []
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/collide",
        "SCRIPT_NAME": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": "0",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.url_scheme": "http",
    }
    try:
        body = app(environ, lambda status, headers, exc_info=None: said.append(status))
        b"".join(body)
    except transaction.interfaces.TransientError:  # given up, as without httpexceptions
        return "503"
    return said[0].split()[0]


def work(app: Any, number: int, answered: list[str]) -> None:
    done = 0
    while done < number:
        if call(app) == "200":
            done += 1
            answered.append("200")


def main(conf: str, puts: int, threads: int) -> None:
    app = make_wsgi_app({}, conf)
    provideHandler(failed, (IPubFailure,))
    answered: list[str] = []
    share = puts // threads
    all_threads = [
        threading.Thread(target=work, args=(app, share, answered)) for _ in range(threads)
    ]
    for thread in all_threads:
        thread.start()
    for thread in all_threads:
        thread.join()
    connection = Zope2.DB.open()
    root = connection.root()
    jobs = list(root[KEY][""])
    told = {
        "answered": len(answered),
        "requests": root["requests"],
        "jobs": len(jobs),
        "distinct": len({job.oid for job in jobs}),
        "repeated": len(repeated),
    }
    print(json.dumps(told))


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
