//! The power button: of the chassis, of a keyboard, or of whoever plays one (a management board, a hypervisor). Without
//! this nothing in the system would act on it.

use crate::log;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::Read;
use std::thread;

const CLASS: &str = "/sys/class/input";
/// `EV_KEY` and `KEY_POWER` in include/uapi/linux/input-event-codes.h.
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
/// `struct input_event` on 64-bit machines: a time of 16 bytes, type, code, value.
const EVENT_BYTES: usize = 24;
const PRESSED: i32 = 1;

/// Listens to all buttons that are there.
pub(crate) fn watch_known() {
    for entry in fs::read_dir(CLASS).into_iter().flatten().flatten() {
        if let Ok(name) = entry.file_name().into_string() {
            watch(&format!("input/{name}"));
        }
    }
}

/// Listens to a device, by the kernel's name of its node, if it has such a button.
pub(crate) fn watch(name: &str) {
    let Some(event) = name.strip_prefix("input/event").filter(|rest| rest.parse::<u32>().is_ok()) else {
        return;
    };
    let keys =
        fs::read_to_string(format!("{CLASS}/event{event}/device/capabilities/key")).unwrap_or_default();
    if !has_key(&keys, KEY_POWER) {
        return;
    }
    let Ok(mut device) = File::open(format!("/dev/{name}")) else { return };
    let listen = move || {
        let mut bytes = [0; EVENT_BYTES];
        // Until it is unplugged.
        while device.read_exact(&mut bytes).is_ok() {
            if is_pressed(&bytes) {
                log::say("the power button was pressed");
                // Only process 1 can refuse it, and it does not.
                let _asked = kill(Pid::from_raw(1), Signal::SIGUSR2);
            }
        }
    };
    if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(listen) {
        log::failed(&format!("listening to the power button: {error}"), "poweroff at a shell does the same");
    }
}

/// Whether a bitmap has a key: hexadecimal words of 64 bits, the highest first.
fn has_key(words: &str, key: u16) -> bool {
    let word = words.split_whitespace().rev().nth(usize::from(key / 64));
    let word = word.and_then(|word| u64::from_str_radix(word, 16).ok()).unwrap_or(0);
    word >> (key % 64) & 1 == 1
}

fn is_pressed(event: &[u8; EVENT_BYTES]) -> bool {
    let [.., t0, t1, c0, c1, v0, v1, v2, v3] = *event;
    let (kind, code) = (u16::from_le_bytes([t0, t1]), u16::from_le_bytes([c0, c1]));
    (kind, code, i32::from_le_bytes([v0, v1, v2, v3])) == (EV_KEY, KEY_POWER, PRESSED)
}

#[cfg(test)]
mod tests {
    use super::{has_key, is_pressed};

    #[test]
    fn a_power_button_is_told_from_a_mouse() {
        // As Linux 6.12 shows them: the button of a PC, and a mouse.
        assert!(has_key("10000000000000 0\n", 116));
        assert!(!has_key("1f0000 0 0 0 0\n", 116));
        assert!(!has_key("", 116));
    }

    #[test]
    fn only_pressing_counts() {
        let event = |code: u16, value: i32| {
            let mut bytes = [0; 24];
            bytes[16] = 1;
            bytes[18..20].copy_from_slice(&code.to_le_bytes());
            bytes[20..].copy_from_slice(&value.to_le_bytes());
            is_pressed(&bytes)
        };
        assert!(event(116, 1) && !event(116, 0) && !event(30, 1));
    }
}
