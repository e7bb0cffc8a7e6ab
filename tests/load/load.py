#!/usr/bin/env python3
"""Writes to a filesystem all the time, and judges later whether a copy of it is of one instant.

    load.py run AT LOG WRITER...        writes until standard input ends
    load.py judge AT LOG BEFORE AFTER   judges a copy that was frozen at some time between BEFORE and AFTER

Every writer notes in a file of the folder LOG, which lies elsewhere, when it began a step and when that was durable
(nanoseconds of CLOCK_MONOTONIC). What was durable BEFORE has to be in the copy, and what began AFTER must not be.
"""

import fcntl, hashlib, json, mmap, os, random, shutil, signal, sqlite3, subprocess, sys, tempfile, time

PAGE = 4096
SLOTS = 512  # pages of a file that is written in place
KEPT = 300  # numbered files that are there at once
PACKAGES = 40


def now():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Log:
    """One JSON list a line: when it began, when it was durable, and what it was."""

    def __init__(self, folder, name):
        self.file = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def begin(self, *what):
        """Noted beforehand, so that what is found later is known even where nothing came of it."""
        self.began = now()
        os.write(self.file, (json.dumps([self.began, None, *what]) + "\n").encode())

    def done(self, *what):
        os.write(self.file, (json.dumps([self.began, now(), *what]) + "\n").encode())


def page(number, generation):
    """A page that says what it is, and proves it."""
    body = f"{number} {generation} ".encode().ljust(PAGE - 32, b"%d" % (generation % 10))
    return body + hashlib.sha256(body).digest()


def read_page(data):
    """Its number and generation; None for a page of zeros; raises where it is neither."""
    if not any(data):
        return None
    body, digest = data[:-32], data[-32:]
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("a page is torn or damaged")
    number, generation = body.split(b" ")[:2]
    return int(number), int(generation)


def write_file(path, data, flags=os.O_CREAT | os.O_TRUNC):
    file = os.open(path, os.O_WRONLY | flags, 0o644)
    try:
        os.write(file, data)
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(path):
    folder = os.open(path, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


# Writers: each runs in a process of its own until it is killed.


def files(at, log):
    """Numbered files, each durable before the next; the oldest are removed."""
    folder, rand, number = f"{at}/files", random.Random(1), 0
    os.makedirs(folder, exist_ok=True)
    while True:
        data = rand.randbytes(rand.choice([100, 4096, 20000, 70000]))
        digest = hashlib.sha256(data).hexdigest()
        log.begin("write", number, digest)
        write_file(f"{folder}/{number:06}", data)
        sync_folder(folder)
        log.done("write", number, digest)
        if number >= KEPT:
            log.begin("remove", number - KEPT)
            os.unlink(f"{folder}/{number - KEPT:06}")
            log.done("remove", number - KEPT)
        number += 1


def pages(at, log, write):
    """Pages of one file, written in place."""
    rand, generation = random.Random(2), 0
    while True:
        generation += 1
        chosen = rand.sample(range(SLOTS), 4)
        log.begin("pages", generation, chosen)
        write(generation, chosen)
        log.done("pages", generation, chosen)


def direct(at, log):
    """In place, past the page cache."""
    file = os.open(f"{at}/direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
    os.ftruncate(file, SLOTS * PAGE)
    buffer = mmap.mmap(-1, PAGE)

    def write(generation, chosen):
        for number in chosen:
            buffer[:] = page(number, generation)
            os.pwrite(file, buffer, number * PAGE)
        os.fsync(file)

    pages(at, log, write)


def mapped(at, log):
    """In place, through memory."""
    file = os.open(f"{at}/mapped", os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(file, SLOTS * PAGE)
    memory = mmap.mmap(file, SLOTS * PAGE)

    def write(generation, chosen):
        for number in chosen:
            memory[number * PAGE : (number + 1) * PAGE] = page(number, generation)
            memory.flush(number * PAGE, PAGE)

    pages(at, log, write)


def sqlite(at, log, mode):
    """Money that moves between two tables, and a ledger of how often."""
    db = sqlite3.connect(f"{at}/{mode}.db", isolation_level=None, timeout=60)
    db.execute(f"pragma journal_mode={mode}")
    db.execute("pragma synchronous=full")
    for table in "ab":
        db.execute(f"create table if not exists {table} (id integer primary key, v integer)")
        db.executemany(f"insert or ignore into {table} values (?, 1000)", [(i,) for i in range(200)])
    db.execute("create table if not exists ledger (n integer primary key, pad blob)")
    rand, number = random.Random(3), 0
    while True:
        log.begin("commit", number)
        db.execute("begin immediate")
        amount = rand.randrange(100)
        db.execute("update a set v = v - ? where id = ?", (amount, rand.randrange(200)))
        db.execute("update b set v = v + ? where id = ?", (amount, rand.randrange(200)))
        db.execute("insert into ledger values (?, ?)", (number, rand.randbytes(200)))
        db.execute("commit")
        log.done("commit", number)
        number += 1


def packages(at, log):
    """As a package manager does: write, sync, rename over."""
    folder, rand, generation = f"{at}/packages", random.Random(4), 0
    os.makedirs(folder, exist_ok=True)
    while True:
        generation += 1
        number = rand.randrange(PACKAGES)
        log.begin("rename", number, generation)
        path = f"{folder}/{number}"
        write_file(f"{path}.new", page(number, generation) * rand.randrange(1, 9))
        os.rename(f"{path}.new", path)
        sync_folder(folder)
        log.done("rename", number, generation)


def checkouts(at, log):
    """Two branches of a Git repository, back and forth."""
    folder = f"{at}/git"
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    env = {**os.environ, **who, "GIT_CONFIG_GLOBAL": "/dev/null"}

    def git(*words):
        subprocess.run(["git", "-C", folder, *words], check=True, env=env, stdout=2, stderr=subprocess.DEVNULL)

    subprocess.run(["git", "init", "-q", "-b", "one", folder], check=True, env=env)
    git("config", "core.fsync", "all")
    for branch in ["one", "two"]:
        for number in range(150):
            with open(f"{folder}/{number}", "w") as file:
                file.write(branch * number * 7)
        git("add", "-A")
        git("commit", "-q", "-m", branch)
        if branch == "one":
            git("checkout", "-q", "-b", "two")
    while True:
        for branch in ["one", "two"]:
            git("checkout", "-q", "-f", branch)


def holes(at, log):
    """Punched, truncated, and shared where the filesystem can."""
    rand, size = random.Random(5), 8 << 20
    while True:
        write_file(f"{at}/holes", rand.randbytes(size))
        # FICLONE; not every filesystem shares.
        with open(f"{at}/holes") as source, open(f"{at}/shared", "w") as target:
            try:
                fcntl.ioctl(target, 0x40049409, source.fileno())
            except OSError:
                pass
        for _ in range(20):
            start = rand.randrange(size // PAGE) * PAGE
            command = ["fallocate", "--punch-hole", "-o", str(start), "-l", str(rand.randrange(1, 64) * PAGE)]
            subprocess.run([*command, f"{at}/holes"], check=False, stderr=subprocess.DEVNULL)
        os.truncate(f"{at}/holes", rand.randrange(size))


def trim(at, log):
    """Discards what is free."""
    while True:
        subprocess.run(["fstrim", at], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1)


def fio(at, log):
    """Random writes past the page cache, many at once, at 8 MB/s."""
    command = ["fio", "--thread", "--name=load", f"--filename={at}/fio", "--size=48M", "--rw=randwrite", "--bs=4k", "--direct=1"]
    command += ["--ioengine=libaio", "--iodepth=16", "--rate=8M", "--time_based", "--runtime=1d", "--output=/dev/null"]
    os.execvp("fio", command)


WRITERS = {
    "files": files,
    "direct": direct,
    "mapped": mapped,
    "delete": lambda at, log: sqlite(at, log, "delete"),
    "wal": lambda at, log: sqlite(at, log, "wal"),
    "packages": packages,
    "checkouts": checkouts,
    "holes": holes,
    "trim": trim,
    "fio": fio,
}


def run(at, log, *names):
    children = []
    for name in names:
        child = os.fork()
        if child == 0:
            # A group of its own, with what it starts.
            os.setpgid(0, 0)
            os.chdir("/")
            try:
                WRITERS[name](at, Log(log, name))
            except BaseException as error:
                print(f"{name}: {error!r}", file=sys.stderr)
            os._exit(1)
        children.append(child)
    sys.stdin.read()
    failed = False
    for child, name in zip(children, names):
        if os.waitpid(child, os.WNOHANG)[0]:
            print(f"{name} had ended", file=sys.stderr)
            failed = True
        else:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
    sys.exit(failed)


# Judges: each yields what is wrong, given what its writer noted.


class Steps:
    """What a writer noted, against an instant between two times."""

    def __init__(self, log, name, before, after):
        begun, done = {}, {}
        for line in open(f"{log}/{name}"):
            began, ended, *what = json.loads(line)
            key = json.dumps(what)
            begun[key] = began
            if ended is not None:
                done[key] = ended
        self.steps = [(json.loads(key), done.get(key), began) for key, began in begun.items()]
        self.before, self.after = before, after

    def certain(self):
        """Was durable before."""
        return [what for what, done, _ in self.steps if done is not None and done <= self.before]

    def possible(self):
        """Began before it was over."""
        return [what for what, _, began in self.steps if began <= self.after]


def judge_files(at, steps):
    digests = {what[1]: what[2] for what, _, _ in steps.steps if what[0] == "write"}
    possible = {what[1] for what in steps.possible() if what[0] == "write"}
    removed = {what[1] for what in steps.possible() if what[0] == "remove"}
    gone = {what[1] for what in steps.certain() if what[0] == "remove"}
    certain = {what[1] for what in steps.certain() if what[0] == "write"}
    found = {int(name) for name in os.listdir(f"{at}/files")}
    for number in sorted(certain - removed):
        if number not in found:
            yield f"file {number} is missing"
        elif hashlib.sha256(open(f"{at}/files/{number:06}", "rb").read()).hexdigest() != digests[number]:
            yield f"file {number} is damaged"
    for number in sorted(found - possible):
        yield f"file {number} is of later"
    for number in sorted(found & gone):
        yield f"file {number} was removed before"


def judge_generations(name, found, last, possible):
    for number, generation in found.items():
        if generation < last.get(number, 0):
            yield f"{name} {number} is of generation {generation}, before {last[number]}"
        if generation and generation not in possible.get(number, ()):
            yield f"{name} {number} is of generation {generation}, which is of later"


def judge_pages(at, steps, name):
    last, possible, found = {}, {}, {}
    for _, generation, numbers in steps.certain():
        last.update({number: generation for number in numbers})
    for _, generation, numbers in steps.possible():
        for number in numbers:
            possible.setdefault(number, set()).add(generation)
    with open(f"{at}/{name}", "rb") as file:
        for number in range(SLOTS):
            try:
                seen = read_page(file.read(PAGE))
            except ValueError as error:
                yield f"{name} {number}: {error}"
                continue
            if seen and seen[0] != number:
                yield f"{name} {number} holds page {seen[0]}"
            found[number] = seen[1] if seen else 0
    yield from judge_generations(name, found, last, possible)


def judge_packages(at, steps):
    last, possible, found = {}, {}, {}
    for _, number, generation in steps.certain():
        last[number] = generation
    for _, number, generation in steps.possible():
        possible.setdefault(number, set()).add(generation)
    for number in range(PACKAGES):
        path = f"{at}/packages/{number}"
        if not os.path.exists(path):
            found[number] = 0
            continue
        data = open(path, "rb").read()
        try:
            seen = {read_page(data[i : i + PAGE]) for i in range(0, len(data), PAGE)}
            if len(seen) != 1 or None in seen:
                yield f"package {number} holds {seen}"
            found[number] = max(page[1] for page in seen if page)
        except ValueError as error:
            yield f"package {number}: {error}"
    yield from judge_generations("package", found, last, possible)


def judge_sqlite(at, steps, mode):
    with tempfile.TemporaryDirectory() as folder:
        # What recovers writes; what is judged stays as it is.
        for suffix in ["", "-wal", "-journal"]:
            if os.path.exists(f"{at}/{mode}.db{suffix}"):
                shutil.copy(f"{at}/{mode}.db{suffix}", f"{folder}/db{suffix}")
        db = sqlite3.connect(f"{folder}/db")
        (said,) = db.execute("pragma integrity_check").fetchone()
        if said != "ok":
            yield f"{mode}: {said}"
            return
        ((total,),) = db.execute("select (select sum(v) from a) + (select sum(v) from b)")
        if total != 400_000:
            yield f"{mode}: the money is {total}"
        ((count, highest),) = db.execute("select count(*), coalesce(max(n), -1) from ledger")
        if count != highest + 1:
            yield f"{mode}: {count} of {highest + 1} in the ledger"
        certain = max((what[1] for what in steps.certain()), default=-1)
        possible = max((what[1] for what in steps.possible()), default=-1)
        if not certain <= highest <= possible:
            yield f"{mode}: {highest} is the last commit, between {certain} and {possible} is right"


def judge_checkouts(at):
    command = ["git", "-c", "safe.directory=*", "-C", f"{at}/git", "fsck", "--full", "--strict"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        yield f"git: {done.stdout}{done.stderr}"


def judge(at, log, before, after):
    steps = lambda name: Steps(log, name, int(before), int(after))
    judges = {
        "files": lambda: judge_files(at, steps("files")),
        "direct": lambda: judge_pages(at, steps("direct"), "direct"),
        "mapped": lambda: judge_pages(at, steps("mapped"), "mapped"),
        "delete": lambda: judge_sqlite(at, steps("delete"), "delete"),
        "wal": lambda: judge_sqlite(at, steps("wal"), "wal"),
        "packages": lambda: judge_packages(at, steps("packages")),
        "checkouts": lambda: judge_checkouts(at),
    }
    faults, counts = [], {}
    for name in sorted(set(os.listdir(log)) & set(judges)):
        counts[name] = len(steps(name).certain())
        try:
            faults += [f"{name}: {fault}" for fault in judges[name]()]
        except (OSError, sqlite3.Error) as error:
            faults.append(f"{name}: {error}")
    print(json.dumps({"durable_before": counts, "faults": faults[:50], "fault_count": len(faults)}))


if __name__ == "__main__":
    {"run": run, "judge": judge}[sys.argv[1]](*sys.argv[2:])
