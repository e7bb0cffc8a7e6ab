//! Other people's file servers on this machine's loopback: Samba, and nfs-ganesha. Both are killed when dropped, with
//! whatever they started.

use crate::need;
use crate::scratch::Scratch;
use crate::tool::{command, judge, tool};
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The user that Samba runs as and serves, who owns nothing else.
pub const USER: &str = "nobody";
/// His password: with what shells, mount options and URLs trip over.
pub const PASSWORD: &str = "pass, wörd=%41@\\";

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A share, as its server is to be configured.
#[derive(Clone, Debug)]
pub struct Export {
    /// Its name: of the SMB share, or of the NFS export below `/`.
    pub name: &'static str,
    /// The folder of this machine.
    pub folder: PathBuf,
    /// Whether clients may write.
    pub is_writable: bool,
}

/// A running server.
pub struct FileServer {
    /// Its port on the loopback.
    pub port: u16,
    address: IpAddr,
    folder: PathBuf,
    command: Box<dyn Fn() -> Command>,
    child: Option<Child>,
}

impl FileServer {
    /// Samba, without privileges. `more` are lines for the end of its configuration, first of
    /// the section `[global]`.
    pub fn samba(scratch: &Scratch, exports: &[Export], more: &str) -> Option<Self> {
        if !need::root() || !need::programs(&["smbd", "pdbedit", "setpriv"]) {
            return None;
        }
        let (folder, port) = (scratch.folder("samba"), free_port());
        let path = |name: &str| folder.join(name).display().to_string();
        let mut text =
            "[global]\nserver role = standalone server\nmap to guest = never\ndisable netbios = yes\n\
            interfaces = lo\nbind interfaces only = yes\nload printers = no\nprintcap name = /dev/null\n\
            disable spoolss = yes\nlog level = 1\n"
                .to_owned();
        for name in [
            "private dir",
            "lock directory",
            "state directory",
            "cache directory",
            "pid directory",
            "ncalrpc dir",
        ] {
            let place = scratch.folder(&format!("samba/{}", name.replace(' ', "-")));
            text.push_str(&format!("{name} = {}\n", place.display()));
        }
        text.push_str(&format!(
            "smb ports = {port}\npassdb backend = tdbsam:{}\nlog file = {}\n",
            path("passdb.tdb"),
            path("log")
        ));
        for Export { name, folder, is_writable } in exports {
            let writable = if *is_writable { "no" } else { "yes" };
            text.push_str(&format!("[{name}]\npath = {}\nread only = {writable}\n", folder.display()));
            tool("chown", &["-R", USER, &folder.display().to_string()]);
        }
        text.push_str(&format!("[global]\n{more}\n"));
        let conf = path("smb.conf");
        std::fs::write(&conf, text).expect("a file");
        open_up(scratch, &folder);
        tool("chown", &["-R", USER, &folder.display().to_string()]);
        add_user(&conf);
        let command = move || {
            let mut command = unprivileged("smbd");
            command.args(["-F", "--no-process-group", "-s", &conf]);
            command
        };
        Some(Self::start(folder, LOOPBACK, port, Box::new(command)))
    }

    /// nfs-ganesha, version 4 only, as root: it opens files by handle. `more` are lines for its `NFSv4` block.
    pub fn ganesha(scratch: &Scratch, exports: &[Export], more: &str) -> Option<Self> {
        Self::ganesha_at(LOOPBACK, scratch, exports, more)
    }

    /// The same at another address of this machine.
    pub fn ganesha_at(address: IpAddr, scratch: &Scratch, exports: &[Export], more: &str) -> Option<Self> {
        if !need::root() || !need::programs(&["ganesha.nfsd"]) {
            return None;
        }
        let (folder, port) = (scratch.folder("ganesha"), free_port());
        let path = |name: &str| folder.join(name).display().to_string();
        let mut text = format!(
            "NFS_CORE_PARAM {{ NFS_Port = {port}; Protocols = 4; Bind_addr = {address}; Enable_NLM = false; \
             Enable_RQUOTA = false; }}\nNFSv4 {{ Graceless = true; {more} }}\nNFS_KRB5 {{ Active_krb5 = false; }}\n"
        );
        for (number, Export { name, folder, is_writable }) in exports.iter().enumerate() {
            let access = if *is_writable { "RW" } else { "RO" };
            text.push_str(&format!(
                "EXPORT {{ Export_Id = {}; Path = {}; Pseudo = /{name}; Access_Type = {access}; Squash = No_Root_Squash; \
                 SecType = sys; FSAL {{ Name = VFS; }} }}\n",
                number + 1,
                folder.display()
            ));
        }
        let (conf, log, pid) = (path("ganesha.conf"), path("log"), path("pid"));
        std::fs::write(&conf, text).expect("a file");
        let command = move || {
            let mut command = command("ganesha.nfsd");
            command.args(["-F", "-f", &conf, "-L", &log, "-p", &pid, "-N", "NIV_EVENT"]);
            command
        };
        Some(Self::start(folder, address, port, Box::new(command)))
    }

    fn start(folder: PathBuf, address: IpAddr, port: u16, command: Box<dyn Fn() -> Command>) -> Self {
        let mut server = Self { port, address, folder, command, child: None };
        server.restart();
        server
    }

    /// Starts it, or starts it again, on the same port.
    pub fn restart(&mut self) {
        self.kill();
        let output = File::create(self.folder.join("output")).expect("a file");
        let mut command = (self.command)();
        // Of its own group, so that what it starts ends with it.
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file"))
            .stderr(output);
        self.child = Some(command.spawn().expect("the server starts"));
        let begun = Instant::now();
        while TcpStream::connect((self.address, self.port)).is_err() {
            let child = self.child.as_mut().expect("just started");
            let over = child.try_wait().expect("a child");
            assert!(over.is_none() && begun.elapsed() < Duration::from_secs(120), "{over:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it at once, in the middle of whatever it does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let group = format!("-{}", child.id());
            let _status = judge("kill", &["-KILL", "--", &group]);
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        ["output", "log"]
            .map(|name| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default())
            .join("\n")
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            println!("--- the server's log\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

/// A port that nobody uses now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Another user's process comes through to a folder of ours.
fn open_up(scratch: &Scratch, folder: &Path) {
    let top = scratch.path("");
    for folder in [top.as_path(), folder] {
        tool("chmod", &["755", &folder.display().to_string()]);
    }
}

fn unprivileged(program: &str) -> Command {
    let mut command = command("setpriv");
    command.args(["--reuid", USER, "--regid", "nogroup", "--clear-groups", "--", program]);
    command
}

fn add_user(conf: &str) {
    let mut command = unprivileged("pdbedit");
    command.args(["-s", conf, "-a", "-t", "-u", USER]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::null()).spawn().expect("pdbedit starts");
    let mut input = child.stdin.take().expect("a pipe");
    write!(input, "{PASSWORD}\n{PASSWORD}\n").expect("pdbedit reads");
    drop(input);
    assert!(child.wait().expect("a child").success(), "pdbedit adds a user");
}
