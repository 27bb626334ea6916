//! The guard's lists: who may not send to guarded VIPs, and who may whatever else is said.
//!
//! A list is what its file says and what an operator added since. The kernel's tries, by which packets
//! are judged, are made equal to that at the start, at each reload of the files and at each change. What
//! was added outlives the daemon in the state file; the tries outlive it too, so that a source that was
//! denied stays so while no daemon runs.

mod metrics;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gateway_common::guard::List;
use gateway_common::limits::GUARD_ADDED_MAX;
use gateway_core::saved::SavedGuard;
use ipnet::IpNet;
use tokio::sync::Notify;

pub use self::metrics::Metrics;

/// Why the tries cannot be read or written.
pub type TriesError = Box<dyn std::error::Error + Send + Sync>;

/// Where packets are judged by.
pub trait Tries: Send {
    /// All prefixes of a list.
    ///
    /// # Errors
    /// They cannot be read.
    fn read(&self, list: List) -> Result<BTreeSet<IpNet>, TriesError>;

    /// Puts a prefix on a list.
    ///
    /// # Errors
    /// There is no room for it.
    fn insert(&mut self, list: List, prefix: IpNet) -> Result<(), TriesError>;

    /// Takes a prefix off a list, if it is there.
    ///
    /// # Errors
    /// It cannot be.
    fn remove(&mut self, list: List, prefix: IpNet) -> Result<(), TriesError>;

    /// Says whether new flows take no line of a confirmed one.
    ///
    /// # Errors
    /// It cannot be written.
    fn keep_confirmed(&mut self, keep: bool) -> Result<(), TriesError>;
}

/// No XDP: no packet is judged.
#[derive(Debug, Default)]
pub struct NoTries;

impl Tries for NoTries {
    fn read(&self, _: List) -> Result<BTreeSet<IpNet>, TriesError> {
        Ok(BTreeSet::new())
    }

    fn insert(&mut self, _: List, _: IpNet) -> Result<(), TriesError> {
        Ok(())
    }

    fn remove(&mut self, _: List, _: IpNet) -> Result<(), TriesError> {
        Ok(())
    }

    fn keep_confirmed(&mut self, _: bool) -> Result<(), TriesError> {
        Ok(())
    }
}

/// What a file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The file.
    pub path: PathBuf,
    /// Its prefixes.
    pub prefixes: Arc<BTreeSet<IpNet>>,
}

/// What the configuration says: the files of both lists, and how new flows are let in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Files {
    /// Of the deny list.
    pub deny: Option<Listed>,
    /// Of the allow list.
    pub allow: Option<Listed>,
    /// Whether new flows take no line of a confirmed one.
    pub keep_confirmed: bool,
}

/// What an operator wants changed of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// To be put on it.
    pub add: BTreeSet<IpNet>,
    /// To be taken off it.
    pub remove: BTreeSet<IpNet>,
}

/// What a change came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Prefixes that were not on the list before.
    pub added: usize,
    /// Prefixes that are no more.
    pub removed: usize,
    /// Prefixes on it now.
    pub prefixes: usize,
}

/// A list as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its file.
    pub file: Option<PathBuf>,
    /// Prefixes that the file says.
    pub listed: usize,
    /// Prefixes that were added at run time.
    pub added: BTreeSet<IpNet>,
}

/// Whether new flows take no line of a confirmed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeps {
    /// Whether they take none.
    pub keep_confirmed: bool,
    /// Whether that was said at run time, rather than by the configuration.
    pub ordered: bool,
}

/// Why a list is not changed.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// It says so in the file.
    #[error(
        "{prefix} is on the list by {}; take it out there and reload, or add it to the allow list",
        path.display()
    )]
    InFile {
        /// What was to be taken off.
        prefix: IpNet,
        /// The file.
        path: PathBuf,
    },
    /// Nobody added it.
    #[error("{prefix} is not on the list; wider and narrower prefixes are taken off by themselves")]
    NotThere {
        /// What was to be taken off.
        prefix: IpNet,
    },
    /// Too many.
    #[error(
        "more than {GUARD_ADDED_MAX} prefixes cannot be added at run time; put them in the file"
    )]
    TooMany,
    /// The kernel refused.
    #[error("the guard's list could not be written; what was written of it holds")]
    Write(#[source] TriesError),
    /// The kernel refused.
    #[error("the guard's list could not be read")]
    Read(#[source] TriesError),
    /// Whoever was to do it hit a bug.
    #[error("the change of the guard's list panicked")]
    Panicked(#[from] tokio::task::JoinError),
}

/// The lists, for who shows and changes them. Cheap to clone.
#[derive(Clone)]
pub struct Keeper {
    lists: Arc<Mutex<Lists>>,
    changed: Arc<Notify>,
    metrics: Metrics,
}

impl Keeper {
    /// Makes the tries what files and `saved` say.
    ///
    /// # Errors
    /// They cannot be read or written.
    pub fn start(
        tries: Box<dyn Tries>,
        files: Files,
        saved: &SavedGuard,
    ) -> Result<Keeper, GuardError> {
        let mut lists = Lists {
            tries,
            files: Files::default(),
            deny: added(&saved.deny),
            allow: added(&saved.allow),
            keep_ordered: saved.keep_confirmed,
            // An earlier daemon may have filled them.
            is_unknown: true,
        };
        lists.relist(files)?;
        let metrics = Metrics::default();
        lists.tell(&metrics);
        Ok(Keeper { lists: Arc::new(Mutex::new(lists)), changed: Arc::default(), metrics })
    }

    /// What is counted of the lists.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Takes over what the files say now.
    ///
    /// # Errors
    /// The kernel refused. The next change or reload makes up for it.
    pub async fn relist(&self, files: Files) -> Result<(), GuardError> {
        self.with(move |lists| lists.relist(files)).await
    }

    /// Changes a list, from now on and over a restart.
    ///
    /// # Errors
    /// What is to be taken off was not added at run time, or there is no room.
    pub async fn change(&self, list: List, change: Change) -> Result<Changed, GuardError> {
        let changed = self.with(move |lists| lists.change(list, &change)).await;
        self.changed.notify_one();
        changed
    }

    /// A list as it is.
    ///
    /// # Errors
    /// Whoever was to look hit a bug.
    pub async fn show(&self, list: List) -> Result<Shown, GuardError> {
        self.with(move |lists| Ok(lists.show(list))).await
    }

    /// Says whether new flows take no line of a confirmed one, from now on and over a restart; `None`: as
    /// the configuration has it.
    ///
    /// # Errors
    /// The kernel refused. The next change or reload makes up for it.
    pub async fn order_keep(&self, order: Option<bool>) -> Result<Keeps, GuardError> {
        let ordered = self.with(move |lists| lists.order_keep(order)).await;
        self.changed.notify_one();
        ordered
    }

    /// Whether new flows take no line of a confirmed one.
    pub fn keeps(&self) -> Keeps {
        self.lock().keeps()
    }

    /// What outlives the daemon.
    pub fn save(&self) -> SavedGuard {
        let lists = self.lock();
        let of = |added: &BTreeSet<IpNet>| {
            added.iter().map(|net| (net.network(), net.prefix_len())).collect()
        };
        SavedGuard {
            deny: of(&lists.deny),
            allow: of(&lists.allow),
            keep_confirmed: lists.keep_ordered,
            ..SavedGuard::default()
        }
    }

    /// Something else that the guard was told is to be saved at once.
    pub fn touch(&self) {
        self.changed.notify_one();
    }

    /// Until a list was changed, so that it can be saved at once.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        // A list is whole after each write, whatever became of who wrote it.
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what may take long: a million prefixes are a million calls of the kernel.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Lists) -> Result<T, GuardError> + Send + 'static,
    ) -> Result<T, GuardError> {
        let keeper = self.clone();
        let working = move || {
            let mut lists = keeper.lock();
            let outcome = work(&mut lists);
            lists.tell(&keeper.metrics);
            outcome
        };
        tokio::task::spawn_blocking(working).await?
    }
}

fn added(saved: &[(IpAddr, u8)]) -> BTreeSet<IpNet> {
    // A state file that somebody changed by hand may hold anything.
    saved.iter().filter_map(|&(addr, len)| Some(IpNet::new(addr, len).ok()?.trunc())).collect()
}

/// Both lists, and the tries that hold them.
struct Lists {
    tries: Box<dyn Tries>,
    files: Files,
    /// Added to the deny list at run time.
    deny: BTreeSet<IpNet>,
    /// Added to the allow list at run time.
    allow: BTreeSet<IpNet>,
    /// What was said at run time of confirmed flows.
    keep_ordered: Option<bool>,
    /// Nobody knows what the tries hold.
    is_unknown: bool,
}

impl Lists {
    fn file(&self, list: List) -> Option<&Listed> {
        match list {
            List::Deny => self.files.deny.as_ref(),
            List::Allow => self.files.allow.as_ref(),
        }
    }

    fn added(&self, list: List) -> &BTreeSet<IpNet> {
        match list {
            List::Deny => &self.deny,
            List::Allow => &self.allow,
        }
    }

    fn added_mut(&mut self, list: List) -> &mut BTreeSet<IpNet> {
        match list {
            List::Deny => &mut self.deny,
            List::Allow => &mut self.allow,
        }
    }

    fn is_listed(&self, list: List, prefix: &IpNet) -> bool {
        self.file(list).is_some_and(|file| file.prefixes.contains(prefix))
    }

    /// All that is to be on a list.
    fn whole(&self, list: List) -> BTreeSet<IpNet> {
        let listed = self.file(list).into_iter().flat_map(|file| file.prefixes.iter());
        listed.chain(self.added(list)).copied().collect()
    }

    fn relist(&mut self, files: Files) -> Result<(), GuardError> {
        if files == self.files && !self.is_unknown {
            return Ok(());
        }
        let before = self.held()?;
        self.files = files;
        // Until all of it is done.
        self.is_unknown = true;
        let after = List::ALL.map(|list| self.whole(list));
        self.tries.keep_confirmed(self.keeps().keep_confirmed).map_err(GuardError::Write)?;
        let [deny, allow] = [0, 1].map(|at| (&before[at], &after[at]));
        // In this order nobody is denied in between who is allowed before and after.
        self.insert_all(List::Allow, allow.1.difference(allow.0))?;
        self.insert_all(List::Deny, deny.1.difference(deny.0))?;
        self.remove_all(List::Deny, deny.0.difference(deny.1))?;
        self.remove_all(List::Allow, allow.0.difference(allow.1))?;
        self.is_unknown = false;
        Ok(())
    }

    /// What the tries hold.
    fn held(&self) -> Result<[BTreeSet<IpNet>; 2], GuardError> {
        if !self.is_unknown {
            return Ok(List::ALL.map(|list| self.whole(list)));
        }
        let read = |list| self.tries.read(list).map_err(GuardError::Read);
        Ok([read(List::Deny)?, read(List::Allow)?])
    }

    fn insert_all<'a>(
        &mut self,
        list: List,
        mut prefixes: impl Iterator<Item = &'a IpNet>,
    ) -> Result<(), GuardError> {
        prefixes.try_for_each(|net| self.tries.insert(list, *net).map_err(GuardError::Write))
    }

    fn remove_all<'a>(
        &mut self,
        list: List,
        mut prefixes: impl Iterator<Item = &'a IpNet>,
    ) -> Result<(), GuardError> {
        prefixes.try_for_each(|net| self.tries.remove(list, *net).map_err(GuardError::Write))
    }

    fn change(&mut self, list: List, change: &Change) -> Result<Changed, GuardError> {
        if let Some(prefix) = change.remove.iter().find(|net| !self.added(list).contains(net)) {
            let prefix = *prefix;
            let file = self.file(list).filter(|_| self.is_listed(list, &prefix));
            return Err(match file {
                Some(file) => GuardError::InFile { prefix, path: file.path.clone() },
                None => GuardError::NotThere { prefix },
            });
        }
        let is_there = |net: &&IpNet| !self.added(list).contains(net) && !self.is_listed(list, net);
        let new: Vec<IpNet> = change.add.iter().filter(is_there).copied().collect();
        if self.added(list).len() + new.len() > GUARD_ADDED_MAX {
            return Err(GuardError::TooMany);
        }
        if self.is_unknown {
            self.relist(self.files.clone())?;
        }
        for prefix in &new {
            self.tries.insert(list, *prefix).map_err(GuardError::Write)?;
            self.added_mut(list).insert(*prefix);
        }
        for prefix in &change.remove {
            // A file may have come to say it since.
            if !self.is_listed(list, prefix) {
                self.tries.remove(list, *prefix).map_err(GuardError::Write)?;
            }
            self.added_mut(list).remove(prefix);
        }
        let prefixes = self.whole(list).len();
        Ok(Changed { added: new.len(), removed: change.remove.len(), prefixes })
    }

    fn order_keep(&mut self, order: Option<bool>) -> Result<Keeps, GuardError> {
        self.keep_ordered = order;
        let keeps = self.keeps();
        // Until it is written.
        let was_unknown = std::mem::replace(&mut self.is_unknown, true);
        self.tries.keep_confirmed(keeps.keep_confirmed).map_err(GuardError::Write)?;
        self.is_unknown = was_unknown;
        Ok(keeps)
    }

    fn keeps(&self) -> Keeps {
        Keeps {
            keep_confirmed: self.keep_ordered.unwrap_or(self.files.keep_confirmed),
            ordered: self.keep_ordered.is_some(),
        }
    }

    fn show(&self, list: List) -> Shown {
        let file = self.file(list);
        Shown {
            file: file.map(|file| file.path.clone()),
            listed: file.map_or(0, |file| file.prefixes.len()),
            added: self.added(list).clone(),
        }
    }

    fn tell(&self, metrics: &Metrics) {
        for list in List::ALL {
            let listed = self.file(list).map_or(0, |file| file.prefixes.len());
            metrics.set(list, listed, self.added(list).len());
        }
    }
}
