//! The lists over tries on the heap that can be made to fail.

use super::*;

/// Shared with the test that looks into it.
#[derive(Clone, Default)]
struct HeapTries(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    lists: [BTreeSet<IpNet>; 2],
    /// Writes that were done, and how many more will succeed; `None`: all.
    writes: usize,
    keeps_confirmed: bool,
    left: Option<usize>,
}

impl HeapTries {
    fn held(&self, list: List) -> Vec<String> {
        let held = self.0.lock().unwrap();
        held.lists[list as usize].iter().map(IpNet::to_string).collect()
    }

    fn write(
        &self,
        list: List,
        work: impl FnOnce(&mut BTreeSet<IpNet>) -> bool,
    ) -> Result<(), TriesError> {
        let mut held = self.0.lock().unwrap();
        if held.left == Some(0) {
            return Err("no room".into());
        }
        held.left = held.left.map(|left| left - 1);
        held.writes += 1;
        work(&mut held.lists[list as usize]);
        Ok(())
    }
}

impl Tries for HeapTries {
    fn read(&self, list: List) -> Result<BTreeSet<IpNet>, TriesError> {
        Ok(self.0.lock().unwrap().lists[list as usize].clone())
    }

    fn insert(&mut self, list: List, prefix: IpNet) -> Result<(), TriesError> {
        self.write(list, |held| held.insert(prefix))
    }

    fn remove(&mut self, list: List, prefix: IpNet) -> Result<(), TriesError> {
        self.write(list, |held| held.remove(&prefix))
    }

    fn keep_confirmed(&mut self, keep: bool) -> Result<(), TriesError> {
        self.0.lock().unwrap().keeps_confirmed = keep;
        Ok(())
    }
}

fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn files(deny: &[&str]) -> Files {
    let prefixes = Arc::new(nets(deny));
    Files { deny: Some(Listed { path: "/etc/deny".into(), prefixes }), ..Files::default() }
}

fn add(texts: &[&str]) -> Change {
    Change { add: nets(texts), remove: BTreeSet::new() }
}

fn remove(texts: &[&str]) -> Change {
    Change { add: BTreeSet::new(), remove: nets(texts) }
}

#[test]
fn a_start_leaves_in_the_tries_what_files_and_state_say_and_nothing_else() {
    let tries = HeapTries::default();
    tries.0.lock().unwrap().lists = [nets(&["10.0.0.0/8", "10.1.0.0/16"]), nets(&["10.9.0.0/16"])];
    let deny = vec![("192.0.2.0".parse().unwrap(), 24)];
    let saved = SavedGuard { deny, ..SavedGuard::default() };
    let keeper = Keeper::start(Box::new(tries.clone()), files(&["10.0.0.0/8"]), &saved).unwrap();
    assert_eq!(tries.held(List::Deny), ["10.0.0.0/8", "192.0.2.0/24"]);
    assert!(tries.held(List::Allow).is_empty());
    assert_eq!(tries.0.lock().unwrap().writes, 3, "what is right is not written");
    assert_eq!(keeper.save(), saved);
}

#[tokio::test]
async fn what_is_added_outlives_a_reload_and_what_the_file_says_does_not() {
    let tries = HeapTries::default();
    let boxed = Box::new(tries.clone());
    let keeper = Keeper::start(boxed, files(&["10.0.0.0/8"]), &SavedGuard::default()).unwrap();
    let both = add(&["10.0.0.0/8", "192.0.2.0/24"]);
    let changed = keeper.change(List::Deny, both).await.unwrap();
    assert_eq!(changed, Changed { added: 1, removed: 0, prefixes: 2 });
    keeper.changed().await;
    let keep_confirmed = true;
    keeper.relist(Files { keep_confirmed, ..files(&["10.1.0.0/16"]) }).await.unwrap();
    assert!(tries.0.lock().unwrap().keeps_confirmed);
    assert_eq!(tries.held(List::Deny), ["10.1.0.0/16", "192.0.2.0/24"]);

    // The file comes to say what was added, and goes on to when that is removed.
    keeper.relist(files(&["192.0.2.0/24"])).await.unwrap();
    keeper.change(List::Deny, remove(&["192.0.2.0/24"])).await.unwrap();
    assert_eq!(tries.held(List::Deny), ["192.0.2.0/24"]);
    let error = keeper.change(List::Deny, remove(&["192.0.2.0/24"])).await.unwrap_err();
    assert!(matches!(error, GuardError::InFile { .. }), "{error}");
    let error = keeper.change(List::Deny, remove(&["192.0.2.7/32"])).await.unwrap_err();
    assert!(matches!(error, GuardError::NotThere { .. }), "{error}");
    assert_eq!(keeper.show(List::Deny).await.unwrap().added, BTreeSet::new());
}

#[tokio::test]
async fn whether_confirmed_flows_are_kept_is_as_ordered_until_that_is_taken_back() {
    let tries = HeapTries::default();
    let boxed = || Box::new(tries.clone());
    let keeps = || tries.0.lock().unwrap().keeps_confirmed;
    let keeper = Keeper::start(boxed(), Files::default(), &SavedGuard::default()).unwrap();
    let told = keeper.order_keep(Some(true)).await.unwrap();
    assert_eq!((told, keeps()), (Keeps { keep_confirmed: true, ordered: true }, true));
    keeper.changed().await;
    keeper.relist(files(&["10.0.0.0/8"])).await.unwrap();
    assert!(keeps(), "over a reload");

    let next = Keeper::start(boxed(), Files::default(), &keeper.save()).unwrap();
    assert!(keeps() && next.keeps().ordered, "over a restart");
    let told = next.order_keep(None).await.unwrap();
    assert_eq!((told, keeps()), (Keeps { keep_confirmed: false, ordered: false }, false));
}

#[tokio::test]
async fn a_change_that_cannot_be_done_as_a_whole_is_not_begun() {
    let tries = HeapTries::default();
    let boxed = Box::new(tries.clone());
    let keeper = Keeper::start(boxed, Files::default(), &SavedGuard::default()).unwrap();
    let half = Change { add: nets(&["10.0.0.0/8"]), remove: nets(&["192.0.2.0/24"]) };
    keeper.change(List::Deny, half).await.unwrap_err();
    assert!(tries.held(List::Deny).is_empty());
    let many = (0..=GUARD_ADDED_MAX as u32).map(|n| IpNet::from(IpAddr::from(n.to_be_bytes())));
    let many = Change { add: many.collect(), remove: BTreeSet::new() };
    let error = keeper.change(List::Deny, many).await.unwrap_err();
    assert!(matches!(error, GuardError::TooMany), "{error}");
    assert!(tries.held(List::Deny).is_empty());
}

#[tokio::test]
async fn what_failed_is_made_up_for_by_the_next_change() {
    let tries = HeapTries::default();
    let boxed = Box::new(tries.clone());
    let keeper = Keeper::start(boxed, files(&["10.0.0.0/8"]), &SavedGuard::default()).unwrap();
    tries.0.lock().unwrap().left = Some(1);
    let error = keeper.relist(files(&["10.1.0.0/16", "10.2.0.0/16"])).await.unwrap_err();
    assert!(matches!(error, GuardError::Write(_)), "{error}");
    tries.0.lock().unwrap().left = None;
    keeper.change(List::Deny, add(&["192.0.2.0/24"])).await.unwrap();
    assert_eq!(tries.held(List::Deny), ["10.1.0.0/16", "10.2.0.0/16", "192.0.2.0/24"]);
}
