"""Notebook instances as their users have them: a real JupyterLab, reached through the server alone."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.console.browser import Browser, browser, log_in
from tests.containers.sandbox import needs_sandbox
from tests.e2e.notebook import Lab, wait_for
from tests.e2e.served import SAGESMITH, Served, wait_until

pytestmark = needs_sandbox  # the scripts of these notebooks name /home/ec2-user/SageMaker

GROUP = "/aws/sagemaker/NotebookInstances"
NAME = "notebook-one"
CONSOLE = "/_sagesmith/console"
ON_CREATE = "#!/bin/bash\nset -e\necho once >> /home/ec2-user/SageMaker/ran.txt\necho created by $(whoami)\n"
ON_START = (
    "sudo -u ec2-user -i <<'EOF'\necho start >> SageMaker/ran.txt || echo start >> ~/SageMaker/ran.txt\nEOF\n"
)


def lab_of(served: Served, name: str = NAME) -> Lab:
    sagemaker = served.client("sagemaker")
    return Lab(
        served, sagemaker.create_presigned_notebook_instance_url(NotebookInstanceName=name)["AuthorizedUrl"]
    )


def script(text: str) -> list[dict[str, str]]:
    return [{"Content": base64.b64encode(text.encode()).decode()}]


def create(served: Served, name: str, **more: Any) -> Any:
    sagemaker = served.client("sagemaker")
    sagemaker.create_notebook_instance(
        NotebookInstanceName=name, InstanceType="ml.t3.medium", RoleArn=served.role, **more
    )
    return sagemaker


def remove(served: Served, name: str) -> None:
    sagemaker = served.client("sagemaker")
    status = sagemaker.describe_notebook_instance(NotebookInstanceName=name)["NotebookInstanceStatus"]
    if status == "InService":
        sagemaker.stop_notebook_instance(NotebookInstanceName=name)
        wait_for(sagemaker, name, "Stopped")
    sagemaker.delete_notebook_instance(NotebookInstanceName=name)
    wait_until(lambda: name not in _names(sagemaker), timeout_s=30, what=f"{name} is deleted")


def press_open(window: Browser) -> None:
    """Open the notebook from the console's list, in the same tab."""
    form = f"form[action$='{NAME}/open']"
    window.run("document.querySelector(arguments[0]).removeAttribute('target')", form)
    window.click(f"{form} button")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def repository(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a git repository, whose files a web server with a certificate of the authority gives out."""
    work, shown = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("shown")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run([*git, "init", "-q", "-b", "main", str(work)], check=True)
    (work / "lesson.txt").write_text("read me", "utf-8")
    subprocess.run([*git, "-C", str(work), "add", "."], check=True)
    subprocess.run([*git, "-C", str(work), "commit", "-q", "-m", "one"], check=True)
    bare = str(shown / "lessons.git")
    subprocess.run([*git, "clone", "-q", "--bare", str(work), bare], check=True)
    subprocess.run([*git, "-C", bare, "update-server-info"], check=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(shown)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(served.home / "authority" / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}/lessons.git"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def notebook(served: Served, repository: str) -> Iterator[Lab]:
    sagemaker = served.client("sagemaker")
    sagemaker.create_code_repository(
        CodeRepositoryName="lessons", GitConfig={"RepositoryUrl": repository, "Branch": "main"}
    )
    sagemaker.create_notebook_instance_lifecycle_config(
        NotebookInstanceLifecycleConfigName="hooks", OnCreate=script(ON_CREATE), OnStart=script(ON_START)
    )
    create(served, NAME, LifecycleConfigName="hooks", DefaultCodeRepository="lessons")
    wait_for(sagemaker, NAME, "InService")
    lab = lab_of(served)
    assert lab.enter()[0] == 303
    yield lab
    remove(served, NAME)
    assert not list(Path(served.home / "notebooks").iterdir()), "its volume is gone"


def test_a_kernel_works_with_the_sdks_as_on_aws(served: Served, notebook: Lab) -> None:
    code = """
import boto3, sagemaker, sagesmith, numpy, pandas, sklearn
print(sagemaker.get_execution_role())
print(sagemaker.Session().default_bucket())
print(boto3.client("sts").get_caller_identity()["Arn"])
open("/home/ec2-user/SageMaker/made.txt", "w").write("by a kernel")
"""
    printed = notebook.run(code).splitlines()
    assert served.role in printed
    assert f"sagemaker-us-east-1-{served.account}" in printed
    assert printed[-1].endswith(f":assumed-role/SagesmithExecutionRole/SageMaker-{NAME}")
    contents = notebook.api("GET", "contents")["content"]
    assert {"made.txt", "lessons", "ran.txt"} <= {entry["name"] for entry in contents}
    assert notebook.api("GET", "contents/lessons/lesson.txt")["content"] == "read me"
    assert notebook.ask("GET", "")[1]["location"].rstrip("?").endswith("/lab/tree/lessons")


def test_nobody_comes_in_without_a_session_of_this_notebook(served: Served, notebook: Lab) -> None:
    lab = lab_of(served)
    assert lab.ask("GET", "api/contents")[0] == 403
    assert lab.ask("GET", "lab", headers={"cookie": "sagesmith-notebook=guessed.token"})[0] == 403
    assert lab.socket("api/events/subscribe").status == 403
    assert lab.enter()[0] == 303
    again = Lab(served, f"https://x{lab._entry}")
    status, headers, page = again.ask("GET", again._entry)
    assert (status, "set-cookie" in headers) == (403, False), "a presigned URL works once"
    assert b"CreatePresignedNotebookInstanceUrl" in page
    other = notebook.base.replace(NAME, "notebook-two")
    assert notebook.ask("GET", f"{other}api/contents")[0] == 403
    evil = {"origin": "https://evil.example"}
    assert notebook.ask("POST", "api/kernels", {}, evil)[0] == 403
    assert notebook.socket("api/events/subscribe", {"Origin": "https://evil.example"}).status == 403
    text = b"".join(notebook.ask("GET", path)[2] for path in ("lab", "api/status", "api/config/x"))
    assert notebook.cookies["sagesmith-notebook"].encode() not in text


def test_another_user_needs_the_permission(served: Served, notebook: Lab) -> None:
    iam = served.client("iam")
    iam.create_user(UserName="visitor-of-notebooks")
    key = iam.create_access_key(UserName="visitor-of-notebooks")["AccessKey"]
    visitor = served.client("sagemaker", keys=key)
    for operation in ("create_presigned_notebook_instance_url", "stop_notebook_instance"):
        with pytest.raises(visitor.exceptions.ClientError, match="not authorized"):
            getattr(visitor, operation)(NotebookInstanceName=NAME)


def test_what_was_written_outlives_a_stop(served: Served, notebook: Lab) -> None:
    sagemaker, logs = served.client("sagemaker"), served.client("logs")
    notebook.api("PUT", "contents/kept.txt", {"type": "file", "format": "text", "content": "kept"})
    sagemaker.stop_notebook_instance(NotebookInstanceName=NAME)
    wait_for(sagemaker, NAME, "Stopped")
    assert notebook.ask("GET", "api/contents")[0] == 403
    sagemaker.start_notebook_instance(NotebookInstanceName=NAME)
    wait_for(sagemaker, NAME, "InService")
    assert notebook.ask("GET", "api/contents")[0] == 403, "a session ends with the start that it was made for"
    notebook.cookies = {}
    entered = lab_of(served)
    assert entered.enter()[0] == 303
    notebook.cookies = entered.cookies
    assert notebook.api("GET", "contents/kept.txt")["content"] == "kept"
    assert notebook.api("GET", "contents/ran.txt")["content"].split() == ["once", "start", "start"]
    events = logs.get_log_events(logGroupName=GROUP, logStreamName=f"{NAME}/LifecycleConfigOnCreate")[
        "events"
    ]
    assert [event["message"] for event in events] == ["created by ec2-user"]


def test_the_examples_run_in_a_notebook(notebook: Lab) -> None:
    """All at once, as `jupyter execute` runs them; it fails at the first error of a cell."""
    code = """
import glob, os, subprocess
os.chdir("/home/ec2-user/SageMaker/examples")
names = sorted(glob.glob("*.ipynb"))
running = [subprocess.Popen(["jupyter", "execute", "--inplace", name], stderr=subprocess.PIPE, text=True) for name in names]
for name, process in zip(names, running):
    error = process.communicate()[1]
    assert process.returncode == 0, (name, error[-2000:])
print(len(names))
"""
    assert notebook.run(code).split() == ["3"]
    for name, words in (("1-train-deploy-predict", "accuracy 0.9"), ("2-boto3", "accuracy 0.9"),
                        ("3-kmeans-with-the-sdk", "clusters [")):  # fmt: skip
        cells = notebook.api("GET", f"contents/examples/{name}.ipynb")["content"]["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", ())]
        assert any(words in output.get("text", "") for output in outputs), outputs
        assert any("image/png" in output.get("data", {}) for output in outputs) or name == "2-boto3"


def test_a_person_runs_a_cell_in_a_browser(served: Served, notebook: Lab) -> None:
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": "one",
        "metadata": {},
        "source": "print(6 * 7)",
        "outputs": [],
        "execution_count": None,
    }
    kernel = {"name": "conda_python3", "display_name": "conda_python3"}
    content = {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    notebook.api("PUT", "contents/cell.ipynb", {"type": "notebook", "format": "json", "content": content})
    run = "[data-command='notebook:run-cell-and-select-next']"
    keys = json.loads((served.home / "credentials.json").read_text("utf-8"))
    with browser() as window:
        log_in(window, f"{served.url}{CONSOLE}/notebooks", keys["AccessKeyId"], keys["SecretAccessKey"])
        window.click("nav a[href$='/notebooks']")
        window.wait("main table", NAME)
        assert "InService" in window.text("main table")
        assert window.accessibility() == []
        assert window.errors() == []
        press_open(window)
        wait_until(lambda: "/lab" in window.url, timeout_s=60, what="the notebook is open")
        window.open(f"{served.url}{notebook.base}lab/tree/cell.ipynb")
        window.wait(".jp-Notebook", "print", timeout_s=120)
        window.wait("#jp-main-statusbar", "conda_python3 | Idle", timeout_s=120)
        window.click(run)
        window.wait(".jp-OutputArea-output", "42", timeout_s=60)
        assert "Jupyter news" not in window.text(), "nobody is asked whether to fetch news from elsewhere"


def test_another_persons_browser_is_kept_out(served: Served, notebook: Lab) -> None:
    """What the owner's browser may, another's may not: neither by the console nor with what one sees of the owner."""
    keys, iam = json.loads((served.home / "credentials.json").read_text("utf-8")), served.client("iam")
    iam.create_user(UserName="onlooker")
    may_look = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "sagemaker:List*", "Resource": "*"}],
    }
    iam.put_user_policy(UserName="onlooker", PolicyName="look", PolicyDocument=json.dumps(may_look))
    key = iam.create_access_key(UserName="onlooker")["AccessKey"]
    console, lab = f"{served.url}{CONSOLE}/notebooks", f"{served.url}{notebook.base}lab"
    presigned = served.client("sagemaker").create_presigned_notebook_instance_url(NotebookInstanceName=NAME)
    with browser() as owner, browser() as onlooker:
        owner.open(f"{presigned['AuthorizedUrl']}&view=lab")
        assert owner.url.startswith(lab)
        assert "sagesmith-notebook" not in owner.run("return document.cookie"), "no script sees the session"

        onlooker.open(console)
        onlooker.type("#key_id", key["AccessKeyId"])
        onlooker.type("#secret", keys["SecretAccessKey"])
        onlooker.click("main button")
        onlooker.wait("section [role=alert]", "secret key is not the access key's")
        log_in(onlooker, console, key["AccessKeyId"], key["SecretAccessKey"])
        assert _refusals(onlooker) == 1
        onlooker.open(console)
        onlooker.wait("main table", NAME)
        assert onlooker.errors() == []
        press_open(onlooker)
        onlooker.wait("h1", "Forbidden")
        assert "sagemaker:CreatePresignedNotebookInstanceUrl" in onlooker.text("main .wrong:not([hidden])")
        assert onlooker.accessibility() == []

        onlooker.open(lab)
        onlooker.wait("h1", "Not logged in")
        onlooker.open(presigned["AuthorizedUrl"])
        onlooker.wait("h1", "Not logged in")
        _, _, ticket = presigned["AuthorizedUrl"].rpartition("authToken=")
        assert ticket
        onlooker.put_cookie("sagesmith-notebook", ticket)
        onlooker.open(lab)
        onlooker.wait("h1", "Not logged in")
        session = owner.cookie("sagesmith-notebook")
        elsewhere = notebook.base.replace(NAME, "notebook-two")
        assert session
        onlooker.put_cookie("sagesmith-notebook", session[:-1] + ("0" if session[-1] != "0" else "1"))
        onlooker.open(lab)
        onlooker.wait("h1", "Not logged in")
        owner.open(f"{served.url}{elsewhere}lab")
        owner.wait("h1", "Not logged in")
        assert owner.cookie("sagesmith-notebook") == "", "a session is for its own notebook's path"
        assert _refusals(onlooker) == 5


def test_a_notebook_outlives_the_server(served: Served, notebook: Lab) -> None:
    before = notebook.api("GET", "status")["started"]
    served.kill()
    served.up()
    status = partial(notebook.ask, "GET", "api/status")
    wait_until(lambda: status()[0] == 200, timeout_s=30, what="the notebook is reached again")
    assert notebook.api("GET", "status")["started"] == before


def test_the_command_line_opens_and_lists_them(served: Served, notebook: Lab) -> None:
    def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(SAGESMITH), "notebook", *arguments, "--home", str(served.home)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert cli("list").stdout.split()[:3] == [NAME, "InService", "ml.t3.medium"]
    lab = Lab(served, cli("open", NAME).stdout.strip())
    assert lab.enter()[0] == 303
    assert lab.ask("GET", "api/status")[0] == 200
    refused = cli("start", NAME)
    assert refused.returncode == 1
    assert "Status (InService) not in ([Stopped, Failed])" in refused.stderr


def test_without_internet_access_the_server_alone_is_reached(served: Served) -> None:
    sagemaker = create(
        served, "closed", DirectInternetAccess="Disabled", SubnetId="subnet-1", SecurityGroupIds=["sg-1"]
    )
    wait_for(sagemaker, "closed", "InService")
    lab = lab_of(served, "closed")
    assert lab.enter()[0] == 303
    code = f"""
import boto3, socket
print(boto3.client("sts").get_caller_identity()["Account"])
try:
    socket.create_connection(("127.0.0.1", {served.port}), 3)
except OSError as error:
    print("no other way:", error)
"""
    account, refused = lab.run(code).splitlines()
    assert account == served.account
    assert refused.startswith("no other way")
    remove(served, "closed")


def test_what_prevents_a_start_is_said(served: Served, notebook: Lab) -> None:
    sagemaker = served.client("sagemaker")
    sagemaker.create_notebook_instance_lifecycle_config(
        NotebookInstanceLifecycleConfigName="broken", OnStart=script("echo trying\nexit 3\n")
    )
    create(served, "broken-script", LifecycleConfigName="broken")
    create(served, "no-repository", DefaultCodeRepository=f"{served.url}/x.git")
    for name, reason in (
        ("broken-script", "exited with error code 3"),
        ("no-repository", "could not be cloned"),
    ):
        found = wait_until(partial(_failed, sagemaker, name), timeout_s=60, what=f"{name} is Failed")
        assert reason in found["FailureReason"]
        remove(served, name)


def _refusals(window: Browser) -> int:
    """Return how many pages the browser was refused since the last call; fail if it complained of anything else."""
    complaints = window.errors()
    assert all("status of 403" in line for line in complaints), complaints
    return len(complaints)


def _names(sagemaker: Any) -> list[str]:
    return [
        found["NotebookInstanceName"] for found in sagemaker.list_notebook_instances()["NotebookInstances"]
    ]


def _failed(sagemaker: Any, name: str) -> dict[str, Any] | None:
    found: dict[str, Any] = sagemaker.describe_notebook_instance(NotebookInstanceName=name)
    return found if found["NotebookInstanceStatus"] == "Failed" else None
