//! `backup`: everything that the daemon keeps, in a file that is whole or isn't there.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use pipelet_proto::v1;

use crate::{
    cli::Backup,
    client::Client,
    error::{Error, ExitStatus},
    output::Printer,
};

pub(crate) async fn run(
    Backup { file, force }: Backup,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    if !force && file.exists() {
        return Err(Error::FileExists(file));
    }
    let unfinished = unfinished(&file);
    let written = write(client, &unfinished, &file).await;
    if written.is_err() {
        // What is left of it is good for nothing.
        let _ = fs::remove_file(&unfinished);
    }
    let bytes = written?;
    printer.note(&format!("wrote {bytes} bytes to {}", file.display()));
    Ok(ExitStatus::Success)
}

async fn write(client: &Client, unfinished: &Path, file: &Path) -> Result<u64, Error> {
    let at = |source| Error::File {
        path: file.to_owned(),
        source,
    };
    let request = v1::BackUpRequest {};
    let mut stream = client.daemon().back_up(request).await?.into_inner();
    // It holds hashes of passwords and keys.
    let mut out = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(unfinished)
        .map_err(at)?;
    let mut bytes = 0;
    while let Some(piece) = stream.message().await? {
        out.write_all(&piece.data).map_err(at)?;
        bytes += piece.data.len() as u64;
    }
    out.sync_all().map_err(at)?;
    fs::rename(unfinished, file).map_err(at)?;
    let directory = file.parent().filter(|path| !path.as_os_str().is_empty());
    let directory = File::open(directory.unwrap_or(Path::new("."))).map_err(at)?;
    directory.sync_all().map_err(at)?;
    Ok(bytes)
}

/// Beside the file, so that it can be moved into its place.
fn unfinished(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(".part");
    name.into()
}
