"""The OS of the lab's servers: installed once by mmdebstrap, kept as a compressed tarball."""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess

SMALL = """systemd-sysv udev dbus ifupdown iproute2 iputils-ping libcap2-bin openssh-server sudo rsyslog
linux-image-cloud-amd64 initramfs-tools zstd e2fsprogs grub-pc-bin grub-efi-amd64-signed shim-signed acl attr""".split()
# What a grown server has: services, compilers, interpreters, locales, documentation; about 3.5 GB.
AGED = SMALL + """linux-image-amd64 build-essential clang git vim postgresql mariadb-server nginx redis-server postfix
dovecot-imapd default-jdk-headless golang-go nodejs php-cli python3-scipy python3-pandas locales-all samba man-db
manpages-dev""".split()
# What a server needs whose volumes lie in a volume group or on mirrors.
STACKED = [*SMALL, "lvm2", "mdadm"]
PACKAGES = {"small": SMALL, "aged": AGED, "stacked": STACKED}

# The BIOS stage of GRUB, made inside where its modules are. It looks for /boot by label, so it fits every seed.
GRUB_HOOK = r"""
printf 'search --no-floppy --label boot --set=root\nset prefix=($root)/grub\n' >"$1/tmp/early.cfg"
chroot "$1" grub-mkimage -O i386-pc -p /grub -c /tmp/early.cfg -o /boot/core.img \
    biosdisk part_gpt part_msdos ext2 search search_label normal linux configfile serial terminal echo
rm "$1/tmp/early.cfg"
mkdir -p "$1/boot/grub"
cp -r "$1/usr/lib/grub/i386-pc" "$1/boot/grub/"
"""


CAP_NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")  # vfs_cap_data, revision 2, permitted + effective


def tarball(variant, cache, say):
    """The path of the tarball; made first where it is absent. Who comes while another makes it waits."""
    with open(cache / f"os-{variant}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return find_or_install(variant, cache, say)


def find_or_install(variant, cache, say):
    packages, suite = PACKAGES[variant], debian_suite()
    key = hashlib.sha256("\n".join([suite, *packages, GRUB_HOOK]).encode()).hexdigest()[:12]
    path = cache / f"os-{variant}-{key}.tar.zst"
    if path.exists():
        return path
    if not shutil.which("mmdebstrap"):
        raise OSError("mmdebstrap is not installed: scripts/setup --demo installs it")
    say(f"installing Debian ({suite}, {len(packages)} packages and what they need); this is done once")
    partial = path.with_suffix(".partial")
    command = ["mmdebstrap", "--variant=minbase", "--quiet", "--format=tar", '--aptopt=Acquire::Languages "none"',
               "--include=" + ",".join(packages), f"--customize-hook={GRUB_HOOK.strip()}", suite, "-", *mirror(suite)]
    try:
        with open(partial, "wb") as out:
            install = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
            subprocess.run(["zstd", "-q", "-1", "-T0"], stdin=install.stdout, stdout=out, check=True)
        if install.wait():
            raise subprocess.CalledProcessError(install.returncode, command)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def debian_suite():
    release = platform.freedesktop_os_release()
    return release["VERSION_CODENAME"] if release.get("ID") == "debian" else "bookworm"


def mirror(suite):
    """The machine's own mirror, where apt knows one; else mmdebstrap's default."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {suite}"]
    found = subprocess.run(command, text=True, capture_output=True).stdout.split()
    return found[:1]


def unpack(tarball, root):
    """Attributes come from the tarball as root; fakeroot forgets a file's mode when tar sets them, so there by hand."""
    root.mkdir()
    real = "FAKEROOTKEY" not in os.environ
    attributes = ["--xattrs", "--xattrs-include=*"] if real else []
    subprocess.run(["tar", "-C", str(root), "--zstd", *attributes, "--numeric-owner", "-xpf", str(tarball)],
                   check=True, capture_output=True)
    if not real:
        os.setxattr(root / "usr/bin/ping", "security.capability", CAP_NET_RAW)
    os.chmod(root, 0o755)
    return root
