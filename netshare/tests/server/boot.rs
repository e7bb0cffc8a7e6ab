//! What machines boot from, as a firmware asks for it: plain HTTP, no token.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

struct Serving(Child, String);

impl Serving {
    fn start(share: &std::path::Path, boot: &std::path::Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netshare"));
        command.arg("serve").arg(share).args(["--listen", "127.0.0.1:0", "--boot-listen", "127.0.0.1:0"]);
        command.arg("--boot").arg(boot).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = log.find_map(|line| {
            let line = line.unwrap();
            Some(line.split_once("machines boot from http://")?.1.trim_end_matches('/').to_owned())
        });
        // Whoever logs to nobody must not stop for that.
        std::thread::spawn(move || log.for_each(drop));
        Self(child, address.unwrap())
    }

    /// Sends a request as it is; the whole answer.
    fn ask(&self, request: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.1).unwrap();
        stream.write_all(format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let body = answer.split_off(end + 4);
        (String::from_utf8(answer).unwrap(), body)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn machines_boot_without_a_token_and_reach_nothing_else() {
    let (share, boot) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let kernel: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(boot.path().join("vmlinuz"), &kernel).unwrap();
    fs::write(boot.path().join(".secret"), b"hush").unwrap();
    std::os::unix::fs::symlink(share.path(), boot.path().join("share")).unwrap();
    let serving = Serving::start(share.path(), boot.path());

    let (head, body) = serving.ask("GET /vmlinuz HTTP/1.1");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.to_lowercase().contains(&format!("content-length: {}", kernel.len())), "{head}");
    assert!(body == kernel);
    let (head, body) = serving.ask("GET /vmlinuz HTTP/1.1\r\nRange: bytes=4-11");
    assert!(head.starts_with("HTTP/1.1 206") && body == kernel[4..12], "{head}");
    let (head, body) = serving.ask("HEAD /vmlinuz HTTP/1.0");
    assert!(head.starts_with("HTTP/1.") && head.contains(" 200 ") && body.is_empty(), "{head}");

    for path in
        ["/", "/absent", "/.secret", "/share/.netshare/tokens", "/../x", "/%2e%2e/x", "/v1/repositories"]
    {
        let (head, _) = serving.ask(&format!("GET {path} HTTP/1.1"));
        assert!(head.starts_with("HTTP/1.1 404"), "{path}: {head}");
    }
    for method in ["PUT", "POST", "DELETE"] {
        let (head, _) = serving.ask(&format!("{method} /vmlinuz HTTP/1.1\r\nContent-Length: 0"));
        assert!(head.starts_with("HTTP/1.1 405"), "{method}: {head}");
    }
    assert!(fs::read(boot.path().join("vmlinuz")).unwrap() == kernel);
}
