//! The first and only process of a test guest: makes the usual filesystems, loads the modules it was given, and then
//! runs what the test on the host asks for, any number of commands at once.
//!
//! Requests and answers are lines of JSON on a virtio port; the console is the kernel's alone, but for one line
//! `e2e: pass` at a clean end. There is no shell in between: a command is its arguments.

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

type Port = Arc<Mutex<File>>;

fn main() {
    if let Err(error) = run() {
        println!("e2e: fail: {error}");
    }
    drop(io::stdout().flush());
    nix::unistd::sync();
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    println!("e2e: fail: {error}");
}

fn run() -> io::Result<()> {
    let kernel =
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp"), ("tmpfs", "/run")];
    for (kind, at) in kernel {
        fs::create_dir_all(at)?;
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)?;
    }
    // As udev would.
    std::os::unix::fs::symlink("/proc/self/fd", "/dev/fd")?;
    must("/bin/busybox", &["--install", "-s", "/bin"])?;
    for module in fs::read_to_string("/etc/modules")?.lines() {
        must("modprobe", &[module])?;
    }
    must("ip", &["link", "set", "lo", "up"])?;
    if std::path::Path::new("/sys/class/net/eth0").exists() {
        must("ip", &["addr", "add", "10.0.2.15/24", "dev", "eth0"])?;
        must("ip", &["link", "set", "eth0", "up"])?;
        must("ip", &["route", "add", "default", "via", "10.0.2.2"])?;
    }
    serve(&port()?)
}

fn must(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = command(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(io::Error::other(format!("{program} {}: {}: {said}", arguments.join(" "), output.status)))
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/tmp").env("LC_ALL", "C");
    command.stdin(Stdio::null());
    command
}

/// The port, as soon as its driver has made it.
fn port() -> io::Result<File> {
    for _ in 0..600 {
        if let Ok(port) = OpenOptions::new().read(true).write(true).open("/dev/vport0p1") {
            return Ok(port);
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err(io::Error::other("no port to the host"))
}

/// Reads requests until the one that ends the guest.
fn serve(port: &File) -> io::Result<()> {
    let answers: Port = Arc::new(Mutex::new(port.try_clone()?));
    answer(&answers, &json!({ "ready": true }));
    let (mut reader, mut pending, mut buffer) = (port, Vec::new(), vec![0; 1 << 16]);
    loop {
        let len = reader.read(&mut buffer)?;
        if len == 0 {
            // Nobody is at the other end yet, or no longer.
            thread::sleep(Duration::from_millis(20));
        }
        pending.extend_from_slice(buffer.get(..len).unwrap_or_default());
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let request: Value = serde_json::from_slice(&line)?;
            if request["end"] == true {
                println!("e2e: pass");
                return Ok(());
            }
            let answers = Arc::clone(&answers);
            thread::spawn(move || answer(&answers, &handle(&request, &answers)));
        }
    }
}

fn answer(port: &Port, what: &Value) {
    let line = format!("{what}\n");
    let mut port = port.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = port.write_all(line.as_bytes()) {
        println!("e2e: fail: answering: {error}");
    }
}

fn handle(request: &Value, port: &Port) -> Value {
    let id = &request["id"];
    match execute(request, port) {
        Ok(mut answer) => {
            answer["id"] = id.clone();
            answer
        }
        Err(error) => json!({ "id": id, "error": error.to_string() }),
    }
}

/// Runs one command to its end; tells its process number first.
fn execute(request: &Value, port: &Port) -> io::Result<Value> {
    let words: Vec<_> = request["run"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let [program, arguments @ ..] = words.as_slice() else { return Err(io::Error::other("nothing to run")) };
    let mut command = command(program);
    for (name, value) in request["env"].as_object().into_iter().flatten() {
        command.env(name, value.as_str().unwrap_or_default());
    }
    let child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    answer(port, &json!({ "started": request["id"], "pid": child.id() }));
    let output = child.wait_with_output()?;
    Ok(json!({
        "code": output.status.code(),
        "signal": output.status.signal(),
        "out": String::from_utf8_lossy(&output.stdout),
        "err": String::from_utf8_lossy(&output.stderr),
    }))
}
