"""The commands under comparison: ours and the peers, as their users call them."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import measure


class Imager:
    """Our command with a repository of its own."""

    def __init__(self, binary, repository, log, password=None):
        self.binary, self.repository, self.log = binary, Path(repository), log
        self.env = {"IMAGER_REPO": str(repository)}
        if password:
            self.env["IMAGER_PASSWORD"] = password

    def init(self):
        shutil.rmtree(self.repository, ignore_errors=True)
        encrypt = ["--encrypt"] if "IMAGER_PASSWORD" in self.env else []
        self._run(["init", *encrypt], self.repository.parent)

    def capture(self, disk, *options):
        return self._run(["capture", disk, "--machine", "bench", "--data", "used", *options], self.repository)

    def restore(self, target, *options):
        return self._run(["restore", "bench@latest", "--to", target, "--yes", *options], Path(target).parent)

    def stored_bytes(self):
        kinds = (self.repository / kind for kind in ("packs", "index", "captures"))
        return sum(path.stat().st_size for kind in kinds for path in kind.rglob("*") if path.is_file())

    def _run(self, arguments, sync):
        return measure.run([self.binary, *arguments], sync, self.env, self.log)


class Share:
    """Our server on loopback, for as long as the `with` lasts."""

    def __init__(self, binary, folder, log):
        self.binary, self.folder, self.log = binary, Path(folder), log

    def __enter__(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        token = [self.binary, "token", "add", "bench", "--dir", self.folder, "--scope", "admin"]
        self.token = subprocess.run(token, check=True, text=True, capture_output=True).stdout.strip()
        with open(f"{self.log}.netshare", "w") as log:
            command = [self.binary, "serve", self.folder, "--listen", "127.0.0.1:0"]
            self.server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
        self.url = self.server.stdout.readline().strip()
        return self

    def __exit__(self, *_):
        self.server.terminate()
        self.server.wait()
        self.server.stdout.close()

    def imager(self, binary):
        imager = Imager(binary, self.folder / "default", self.log)
        imager.env |= {"IMAGER_REPO": self.url, "IMAGER_TOKEN": self.token}
        # A new certificate at every start is no attack here.
        imager.env["IMAGER_STATE_DIR"] = str(self.folder) + "-state"
        shutil.rmtree(imager.env["IMAGER_STATE_DIR"], ignore_errors=True)
        return imager


class Partclone:
    """Clonezilla's pipe."""

    needs = ("partclone.ext4", "zstd")

    def __init__(self, image, log, program="partclone.ext4"):
        self.image, self.log, self.program = image, log, program
        self.needs = (program, "zstd")

    def capture(self, source):
        self.image.unlink(missing_ok=True)
        pipe = f"{self.program} -c -s {quote(source)} -o - -L {self.own_log()} | zstd -q -3 -T2 > {quote(self.image)}"
        return measure.run(pipe, self.image.parent, log=self.log)

    def restore(self, target):
        option = "-o" if target.is_block_device() else "-O"
        pipe = f"zstd -q -dc {quote(self.image)} | {self.program} -r -s - {option} {quote(target)} -L {self.own_log()}"
        return measure.run(pipe, target, log=self.log)

    def own_log(self):
        return quote(str(self.log) + ".partclone")


class Ntfsclone:
    """The better peer for NTFS: complete, and faster to restore."""

    needs = ("ntfsclone", "zstd")

    def __init__(self, image, log):
        self.image, self.log = image, log

    def capture(self, source):
        self.image.unlink(missing_ok=True)
        return measure.run(f"ntfsclone -q -s -o - {quote(source)} | zstd -q -3 -T2 > {quote(self.image)}", self.image.parent, log=self.log)

    def restore(self, target):
        return measure.run(f"zstd -q -dc {quote(self.image)} | ntfsclone -q -r -O {quote(target)} -", target, log=self.log)


class Borg:
    needs = ("borg",)

    def __init__(self, repository, log):
        self.repository, self.log = repository, log
        self.env = {"BORG_BASE_DIR": str(repository) + "-home", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}

    def init(self):
        for path in (self.repository, Path(self.env["BORG_BASE_DIR"])):
            shutil.rmtree(path, ignore_errors=True)
        os.makedirs(self.env["BORG_BASE_DIR"])
        measure.run(["borg", "init", "-e", "none", self.repository], self.repository.parent, self.env, self.log)

    def create(self, name, source):
        # A regular file would be skipped by its unchanged mtime; a device is always read.
        cache = [] if source.is_block_device() else ["--files-cache", "disabled"]
        command = ["borg", "create", "--read-special", "-C", "zstd,3", "--chunker-params", "fixed,4194304", *cache]
        return measure.run([*command, f"{self.repository}::{name}", source], self.repository, self.env, self.log)


def missing(tool):
    return [command for command in tool.needs if not shutil.which(command)]


def quote(path):
    return shlex.quote(str(path))
