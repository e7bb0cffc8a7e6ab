//! `imager mount`.

use super::args::{Global, Mount};
use super::failure::Failure;
use super::output::{Columns, print, print_json};
use super::progress::Shown;
use super::{Status, session};
use imager::monitor::{Monitor, Stage};
use imager::mount::{self, Access, Tree};
use imager::repository::Repository;
use imager_units::{ByteLen, ErrorKind};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) fn run(global: &Global, options: &Mount) -> Result<Status, Failure> {
    let monitor = UntilHangup::new(Shown::new(global));
    let repository = session::repository(global)?;
    let (manifest, _) = session::capture(&repository, &options.capture)?;
    // The mount is the rest of this process.
    let repository: &'static Repository = Box::leak(Box::new(repository));
    let tree = mount::tree(repository, &manifest).map_err(Failure::damaged)?;
    let access = if options.allow_other { Access::All } else { Access::Owner };
    let (as_json, as_text) = (to_json(&tree), to_text(&tree));
    let mut ready = |at: &Path| {
        if global.json {
            let mut told = as_json.clone();
            told["mounted"] = json!(at);
            print_json(&told);
        } else {
            let shown = at.display();
            print(&as_text.replace(" DIR/", &format!(" {shown}/")));
            print(&format!(
                "Mounted at {shown}, read-only, until interrupted or unmounted (umount {shown}).\n"
            ));
        }
    };
    mount::serve(tree, &options.dir, access, &monitor, &mut ready).map_err(refused)?;
    Ok(Status::Done)
}

fn refused(error: imager_units::Error) -> Failure {
    match error.kind() {
        ErrorKind::Exists => Failure::new(1, error, "nothing was mounted"),
        ErrorKind::Unsupported => Failure::new(1, error, "imager nbd and imager export do without FUSE"),
        ErrorKind::Denied => Failure::new(1, error, "run it as root, or mount at a folder of your own"),
        _ => error.into(),
    }
}

fn to_json(tree: &Tree) -> Value {
    let items = tree.items().iter().map(
        |item| json!({ "name": item.name, "description": item.description, "size_bytes": item.size_bytes() }),
    );
    json!({ "items": items.collect::<Vec<_>>(), "notes": tree.notes() })
}

fn to_text(tree: &Tree) -> String {
    let mut columns = Columns::new(&["NAME", "SIZE", "WHAT"], &[1]);
    for item in tree.items() {
        let size = item.size_bytes().map_or(String::new(), |size| ByteLen::new(size).to_string());
        let slash = if item.size_bytes().is_none() { "/" } else { "" };
        columns.row(vec![format!("{}{slash}", item.name), size, item.description.clone()]);
    }
    let notes = tree.notes().iter().map(|note| format!("{note}\n"));
    columns.render("") + &notes.collect::<String>()
}

/// A monitor that is also stopped when the terminal goes away, which would leave a dead mount.
struct UntilHangup {
    shown: Shown,
    hangup: Arc<AtomicBool>,
}

impl UntilHangup {
    fn new(shown: Shown) -> Self {
        let hangup = Arc::new(AtomicBool::new(false));
        if let Err(error) = signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&hangup)) {
            tracing::warn!("the end of the terminal will end the program at once: {error}");
        }
        Self { shown, hangup }
    }
}

impl Monitor for UntilHangup {
    fn phase(&self, what: &str, total: Option<ByteLen>) {
        self.shown.phase(what, total);
    }

    fn advance(&self, done: ByteLen) {
        self.shown.advance(done);
    }

    fn spent(&self, stage: Stage, time: Duration) {
        self.shown.spent(stage, time);
    }

    fn notice(&self, message: &str) {
        self.shown.notice(message);
    }

    fn cancelled(&self) -> bool {
        self.shown.cancelled() || self.hangup.load(Ordering::Relaxed)
    }
}
