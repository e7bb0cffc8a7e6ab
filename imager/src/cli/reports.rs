//! `imager reports`, and the report that `imager restore --report` puts.

use super::args::{Global, Reports, Restore};
use super::failure::Failure;
use super::output::{Columns, or_dash, print, print_json};
use super::{Status, session};
use imager::clock;
use imager::firmware::Firmware;
use imager::report::{self, Document, Listed};
use imager::repository::Repository;
use imager::restore::plan::Plan;
use imager_image::manifest::Manifest;
use imager_image::names;
use imager_units::{ByteLen, ErrorKind};
use serde_json::{Value, json};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The rescue environment's version and log.
const RELEASE: &str = "/etc/halfhour/release";
const LOG: &str = "/run/halfhour/log";
/// How much of the log's end is told.
const LOG_BYTES: i64 = 64 << 10;
/// What holds a secret of this process, or stands before one on the kernel's command line.
const SECRETS: [&str; 3] = ["IMAGER_TOKEN", "IMAGER_PASSWORD", "IMAGER_SHARE_PASSWORD"];
const SECRET_SETTINGS: [&str; 3] = ["halfhour.token=", "halfhour.password=", "halfhour.share_password="];

/// A report that is being written while a restore goes on.
pub(super) struct Draft(Document);

impl Draft {
    /// Before anything is known but what a person asked for.
    pub(super) fn begin(options: &Restore) -> Self {
        let machine = options.capture.split('@').next().unwrap_or_default();
        let known = names::check_machine(machine).is_ok();
        let trimmed = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        Self(Document {
            machine: if known { machine.to_owned() } else { String::new() },
            started: clock::now_rfc3339(),
            targets: options.to.iter().map(|name| json!({ "asked": name })).collect(),
            agent: concat!("imager ", env!("CARGO_PKG_VERSION")).to_owned(),
            rescue: trimmed(RELEASE),
            host: json!({
                "hostname": trimmed("/proc/sys/kernel/hostname"),
                "hardware_uuid": trimmed("/sys/class/dmi/id/product_uuid").map(|uuid| uuid.to_lowercase()),
                "firmware": Firmware::new().kind().map(|kind| kind.word()),
            }),
            ..Document::default()
        })
    }

    /// The capture was found.
    pub(super) fn is_of(&mut self, manifest: &Manifest) {
        self.0.machine.clone_from(&manifest.header.machine);
        self.0.capture = Some(manifest.header.id);
    }

    /// The plan was made.
    pub(super) fn follows(&mut self, plan: &Plan) {
        self.0.plan = Some(plan.hash());
        let target = |disk: &imager::restore::plan::DiskPlan| {
            let identity = &disk.target.identity;
            json!({
                "disk": disk.disk.number, "path": disk.target.path, "model": identity.model,
                "serial": identity.serial, "wwn": identity.wwn, "size_bytes": disk.target.geometry.size.get(),
            })
        };
        self.0.targets = plan.disks.iter().map(target).collect();
    }

    /// Puts the report: what the command printed, or why it failed, and its exit status. Says what kept it from being
    /// put, which changes nothing about the restore.
    pub(super) fn put(
        mut self,
        repository: &Repository,
        outcome: Result<(u8, &Value), &Failure>,
    ) -> Option<String> {
        let document = &mut self.0;
        document.ended = clock::now_rfc3339();
        document.log = log(Path::new(LOG));
        match outcome {
            Ok((code, result)) => (document.exit_status, document.result) = (code, result.clone()),
            Err(failure) => (document.exit_status, document.error) = (failure.code(), failure.json()),
        }
        if document.machine.is_empty() {
            return Some("no report was put: which machine it is about is not known".to_owned());
        }
        let error = report::put(repository, document).err()?;
        Some(format!("no report was put: {}", super::failure::chain(&error)))
    }
}

/// The last lines of the log, without secrets; none where there is no log.
fn log(path: &Path) -> Vec<String> {
    let tail = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let len = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
        file.seek(SeekFrom::End(-len.min(LOG_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES.unsigned_abs()).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = tail().unwrap_or_default();
    let secrets: Vec<_> =
        SECRETS.iter().filter_map(|name| std::env::var(name).ok()).filter(|s| !s.is_empty()).collect();
    String::from_utf8_lossy(&bytes).lines().map(|line| without_secrets(line, &secrets)).collect()
}

fn without_secrets(line: &str, secrets: &[String]) -> String {
    let mut line =
        secrets.iter().fold(line.to_owned(), |line, secret| line.replace(secret.as_str(), "(secret)"));
    for name in SECRET_SETTINGS {
        if let Some((before, _)) = line.split_once(name) {
            line = format!("{before}{name}(secret, and what followed)");
        }
    }
    line
}

pub(crate) fn run(global: &Global, options: &Reports) -> Result<Status, Failure> {
    let (machine, time) =
        match options.machine.as_deref().map(|text| text.split_once('@').unwrap_or((text, ""))) {
            Some((machine, time)) => (Some(machine.to_owned()), Some(time).filter(|time| !time.is_empty())),
            None => (None, None),
        };
    if let Some(machine) = &machine {
        names::check_machine(machine)?;
    }
    let time =
        time.map(|time| clock::parse(time).map(|time| clock::compact(&clock::rfc3339(time)))).transpose()?;
    let repository = session::repository(global)?;
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    let mut each = |listed: Listed| match listed.document {
        Ok(document) if time.as_ref().is_none_or(|time| *time == listed.time) => found.push(document),
        Ok(_) => {}
        Err(error) => damaged.push(format!("{}: {}", listed.name, super::failure::chain(&error))),
    };
    report::list(&repository, machine.as_deref(), &mut each)?;
    if let (Some(time), true) = (&time, found.is_empty()) {
        let what = format!("there is no report of {} at {time}", machine.unwrap_or_default());
        let error = imager_units::Error::new(ErrorKind::NotFound, what);
        return Err(Failure::new(1, error, "imager reports shows which there are"));
    }
    match (global.json, &time) {
        (true, _) => print_json(&json!({ "reports": found, "damaged": damaged })),
        (false, Some(_)) => found.iter().for_each(print_json),
        (false, None) if found.is_empty() && damaged.is_empty() => print(&none_text(machine.as_deref())),
        (false, None) if found.is_empty() => {}
        (false, None) => print(&to_text(&found)),
    }
    if !global.json {
        damaged.iter().for_each(|damaged| print(&format!("DAMAGED: {damaged}\n")));
    }
    Ok(if damaged.is_empty() { Status::Done } else { Status::Damaged })
}

/// An empty table would leave open whether a name is right.
fn none_text(machine: Option<&str>) -> String {
    match machine {
        Some(machine) => format!("there are no reports of {machine}\n"),
        None => "there are no reports\n".to_owned(),
    }
}

fn to_text(reports: &[Document]) -> String {
    let mut columns = Columns::new(&["MACHINE", "TIME", "CAPTURE", "TARGET", "EXIT", "WHAT"], &[4]);
    for report in reports {
        let target = report.targets.iter().map(|target| {
            let name = ["serial", "wwn", "path", "asked"].iter().find_map(|field| target[*field].as_str());
            printable(name.unwrap_or_default())
        });
        let capture =
            report.capture.map(|id| format!("id:{}", id.to_string().chars().take(12).collect::<String>()));
        let what = match report.error["message"].as_str() {
            Some(message) => printable(message),
            None => {
                let written = ByteLen::new(report.result["written_bytes"].as_u64().unwrap_or(0));
                let count = |field: &str| report.result[field].as_array().map_or(0, Vec::len);
                format!("{written} written, {} problems, {} warnings", count("problems"), count("warnings"))
            }
        };
        columns.row(vec![
            report.machine.clone(),
            printable(&report.ended),
            or_dash(capture.as_deref()),
            target.collect::<Vec<_>>().join(", "),
            report.exit_status.to_string(),
            what,
        ]);
    }
    columns.render("")
}

/// What somebody else wrote, fit for a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::{log, without_secrets};

    #[test]
    fn secrets_stay_out_of_the_log() {
        let secrets = ["hh_1_hush".to_owned()];
        assert_eq!(without_secrets("opening with hh_1_hush", &secrets), "opening with (secret)");
        for line in ["quiet halfhour.token=abc halfhour.repo=x", "halfhour.password=\"a b\" x"] {
            let shown = without_secrets(line, &secrets);
            assert!(!shown.contains("abc") && !shown.contains("a b") && shown.contains("(secret"), "{shown}");
        }
    }

    #[test]
    fn the_end_of_a_long_log_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
        std::fs::write(file.path(), text).unwrap();
        let lines = log(file.path());
        assert_eq!(lines.last().map(String::as_str), Some("line 19999"));
        assert!(lines.len() > 1000 && lines.len() < 10_000);
        assert!(log(std::path::Path::new("/nonexistent")).is_empty());
    }
}
