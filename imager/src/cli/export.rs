//! `imager export`.

use super::args::{Export, FormatArg, Global};
use super::failure::Failure;
use super::output::{print, print_json};
use super::progress::Shown;
use super::{Status, session};
use imager::export::{self, Format, Subject};
use imager_units::{ByteLen, ErrorKind};

pub(crate) fn run(global: &Global, options: &Export) -> Result<Status, Failure> {
    let monitor = Shown::new(global);
    let repository = session::repository(global)?;
    let (manifest, _) = session::capture(&repository, &options.capture)?;
    let first = manifest.disks.iter().map(|disk| disk.number).min().unwrap_or(1);
    let subject = match &options.volume {
        Some(key) => Subject::Volume(key.clone()),
        None => Subject::Disk(options.disk.unwrap_or(first)),
    };
    let format = match options.format {
        FormatArg::Raw => Format::Raw,
        FormatArg::Qcow2 => Format::Qcow2,
    };
    let report =
        export::run(&repository, &manifest, &subject, &options.file, format, &monitor).map_err(|error| {
            match error.kind() {
                ErrorKind::Corrupt => Failure::damaged(error),
                ErrorKind::Exists => {
                    Failure::new(1, error, "choose another name; an existing file is never overwritten")
                }
                _ => error.into(),
            }
        })?;
    drop(monitor);
    if global.json {
        print_json(&report);
    } else {
        print(&format!(
            "{}: {}, {} of it data, in {:.1} s\n",
            report.file.display(),
            ByteLen::new(report.size_bytes),
            ByteLen::new(report.data_bytes),
            report.elapsed_seconds
        ));
        for problem in &report.problems {
            print(&format!(
                "PROBLEM: volume {}: {}; it is zero in the file\n",
                problem.volume, problem.message
            ));
        }
        manifest.not_captured.iter().for_each(|missing| print(&format!("not in the image: {missing}\n")));
    }
    Ok(if report.problems.is_empty() { Status::Done } else { Status::Missing })
}
