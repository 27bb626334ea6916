//! Notices that the configuration file changed, or what lies in the folder of models.
//!
//! The folder is watched, not the file: editors and configuration managers put a new file in the
//! place of the old one, and a watched file would be the old one for ever.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Quiet for this long means that whoever writes has finished.
const QUIET: Duration = Duration::from_millis(200);

/// Watches one file.
pub(super) struct Watch {
    path: PathBuf,
    /// The text that was last reported, or found at the start.
    known: Option<Vec<u8>>,
    events: mpsc::Receiver<()>,
    /// Watches as long as it lives; `None` if the system refused.
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches `path`, which had the text `known` when it was last read. Where the system refuses,
    /// that is logged, and a reload takes a SIGHUP.
    pub(super) fn start(path: &Path, known: Option<Vec<u8>>) -> Watch {
        // One is enough to look again, so what finds no place is not lost.
        let (changed, events) = mpsc::channel(1);
        // The first look is for what changed before somebody watched.
        let _ = changed.try_send(());
        let watcher = watch_folder(path, changed);
        if let Err(error) = &watcher {
            tracing::warn!(%error, path = %path.display(), "the configuration is not watched; reload it by SIGHUP");
        }
        Watch { path: path.to_owned(), known, events, _watcher: watcher.ok() }
    }

    /// Takes the text that is there now as known: somebody else had it read.
    pub(super) fn mark_read(&mut self) {
        self.known = text_of(&self.path);
    }

    /// Until the file has another text than before. A file that is not there has none: it is about
    /// to be replaced.
    pub(super) async fn changed(&mut self) {
        loop {
            if self.events.recv().await.is_none() {
                // Nobody watches.
                std::future::pending::<()>().await;
            }
            while let Ok(Some(())) = tokio::time::timeout(QUIET, self.events.recv()).await {}
            let text = text_of(&self.path);
            if text.is_some() && text != self.known {
                self.known = text;
                return;
            }
        }
    }
}

/// Watches what lies in a folder, however deep.
pub(super) struct FolderWatch {
    events: mpsc::Receiver<()>,
    /// Watches as long as it lives; `None` if there is no folder, or the system refused.
    _watcher: Option<RecommendedWatcher>,
}

impl FolderWatch {
    /// Watches `folder`, if there is to be one; it is made where it is missing. Where the system
    /// refuses, that is logged, and a look takes a SIGHUP.
    pub(super) fn start(folder: Option<&Path>) -> FolderWatch {
        let (changed, events) = mpsc::channel(1);
        let watch = |folder: &Path| {
            std::fs::create_dir_all(folder).map_err(notify::Error::io)?;
            watch(folder, RecursiveMode::Recursive, changed)
        };
        let watcher = folder.map(watch).transpose().unwrap_or_else(|error| {
            let path = folder.map(|folder| folder.display().to_string());
            tracing::warn!(%error, path, "the models are not watched; look again by SIGHUP");
            None
        });
        FolderWatch { events, _watcher: watcher }
    }

    /// Until something changed, and whoever changed it has finished.
    pub(super) async fn changed(&mut self) {
        if self.events.recv().await.is_none() {
            // Nobody watches.
            std::future::pending::<()>().await;
        }
        while let Ok(Some(())) = tokio::time::timeout(QUIET, self.events.recv()).await {}
    }
}

/// The file's text; `None` if it cannot be read.
pub(super) fn text_of(path: &Path) -> Option<Vec<u8>> {
    std::fs::read(path).ok()
}

fn watch_folder(path: &Path, changed: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    watch(folder.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive, changed)
}

fn watch(
    folder: &Path,
    mode: RecursiveMode,
    changed: mpsc::Sender<()>,
) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own reading is no change.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            let _ = changed.try_send(());
        }
    })?;
    watcher.watch(folder, mode)?;
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a change is reported before a deadline that is long enough for one.
    async fn is_reported(watch: &mut Watch) -> bool {
        tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn a_file_that_is_written_or_replaced_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, "a = 1").unwrap();
        let mut watch = Watch::start(&path, text_of(&path));

        std::fs::write(&path, "a = 2").unwrap();
        assert!(is_reported(&mut watch).await, "written in place");

        let other = folder.path().join("new");
        std::fs::write(&other, "a = 3").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(is_reported(&mut watch).await, "replaced by another file");
    }

    #[tokio::test]
    async fn what_is_written_anywhere_in_a_folder_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("models");
        let mut watch = FolderWatch::start(Some(&deep));
        std::fs::create_dir_all(deep.join("fault")).unwrap();
        let reported = async |watch: &mut FolderWatch| {
            tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.is_ok()
        };
        assert!(reported(&mut watch).await, "a folder was made");
        std::fs::write(deep.join("fault/current"), "first").unwrap();
        assert!(reported(&mut watch).await, "a file was written");
    }

    #[tokio::test]
    async fn what_changed_before_somebody_watched_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, "a = 1").unwrap();
        let known = text_of(&path);
        std::fs::write(&path, "a = 2").unwrap();
        let mut watch = Watch::start(&path, known);
        assert!(is_reported(&mut watch).await);
    }

    #[tokio::test]
    async fn what_is_known_and_other_files_are_not_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, "a = 1").unwrap();
        let mut watch = Watch::start(&path, text_of(&path));
        std::fs::write(folder.path().join("other"), "b = 1").unwrap();
        std::fs::write(&path, "a = 1").unwrap();
        std::fs::write(&path, "a = 2").unwrap();
        watch.mark_read();
        let reported = tokio::time::timeout(3 * QUIET, watch.changed()).await;
        assert!(reported.is_err());
    }
}
