//! `imager nbd`.

use super::args::{Global, Nbd};
use super::failure::Failure;
use super::output::{Columns, print, print_json};
use super::progress::Shown;
use super::{Status, session};
use imager::nbd::{self, Address, Export, Listener};
use imager_disk::ReadAt;
use serde_json::{Value, json};

pub(crate) fn run(global: &Global, options: &Nbd) -> Result<Status, Failure> {
    let monitor = Shown::new(global);
    let address: Address = options.listen.parse()?;
    let repository = session::repository(global)?;
    let (manifest, _) = session::capture(&repository, &options.capture)?;
    let exports = nbd::exports(&repository, &manifest)?;
    let listener = Listener::bind(&address)?;
    if global.json {
        print_json(&to_json(&listener, &exports));
    } else {
        print(&to_text(&listener, &exports));
    }
    nbd::serve(&listener, &exports, &monitor)?;
    Ok(Status::Done)
}

fn to_json(listener: &Listener, exports: &[Export<'_>]) -> Value {
    let exports: Vec<_> = exports
        .iter()
        .map(|export| {
            json!({
                "name": export.name, "uri": listener.uri(&export.name), "description": export.description,
                "size_bytes": export.view.geometry().size.get(),
            })
        })
        .collect();
    json!({ "exports": exports })
}

fn to_text(listener: &Listener, exports: &[Export<'_>]) -> String {
    let mut columns = Columns::new(&["EXPORT", "SIZE", "WHAT", "URI"], &[1]);
    for export in exports {
        columns.row(vec![
            export.name.clone(),
            export.view.geometry().size.to_string(),
            export.description.clone(),
            listener.uri(&export.name),
        ]);
    }
    columns.render("") + "Serving, read-only, until interrupted.\n"
}
