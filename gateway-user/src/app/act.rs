//! Runs what the core orders about backends that were cut, and tells it how that ended.

use std::time::SystemTime;

use gateway_core::recovery::{ActionResult, Cut, End, Order, Run, Ticket};
use gateway_core::target::Target;
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::control::{Actor, Handle};
use crate::l7::Resets;
use crate::notify::{Ended, Hearer, How, Message, Notifier};

/// Ends on their way back to the loop: no more than it ordered, which its limits bound.
type Ends = UnboundedSender<(Ticket, End)>;

/// What orders become outside of the loop, which must not wait for any of it.
pub(super) struct Recovery {
    ended: UnboundedReceiver<(Ticket, End)>,
    resets: UnboundedReceiver<Ticket>,
    ends: Ends,
}

/// Who takes orders, and what becomes of them.
pub(super) fn new(notifier: Notifier) -> (Actor, Recovery) {
    let (ends, ended) = unbounded_channel();
    let (reset, resets) = unbounded_channel();
    let recovery = Recovery { ended, resets, ends: ends.clone() };
    let actor = Box::new(move |Order { ticket, cut, run }| match run {
        Run::Webhook(webhook) => tell(&notifier, &ends, ticket, &cut, Target::Webhook(webhook)),
        Run::Command(command) => tell(&notifier, &ends, ticket, &cut, Target::Command(command)),
        // Gone with the daemon's end alone.
        Run::ResetConnections => drop(reset.send(ticket)),
    });
    (actor, recovery)
}

impl Recovery {
    /// Has connections reset, and hands ends to the loop, for as long as it is polled.
    pub(super) async fn run(mut self, proxy: Resets, handle: Handle) {
        loop {
            tokio::select! {
                Some((ticket, end)) = self.ended.recv() => {
                    // A loop that has ended ends the daemon.
                    let _ = handle.ask(move |engine| engine.recovered(ticket, end)).await;
                }
                Some(ticket) = self.resets.recv() => {
                    let (closed, ends) = (proxy.reset(ticket.backend), self.ends.clone());
                    // A traffic thread that is busy holds up no other end.
                    tokio::spawn(async move {
                        let _ = ends.send((ticket, reset_end(closed.await)));
                    });
                }
            }
        }
    }
}

fn reset_end(closed: usize) -> End {
    let said = match closed {
        1 => "1 connection closed".to_owned(),
        closed => format!("{closed} connections closed"),
    };
    End { result: ActionResult::Done, said }
}

/// What a target reads.
#[derive(Serialize)]
struct News<'a> {
    about: &'static str,
    #[serde(flatten)]
    cut: &'a Cut,
    /// By this machine's clock (RFC 3339).
    time: String,
}

fn tell(notifier: &Notifier, ends: &Ends, ticket: Ticket, cut: &Cut, target: Target) {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let environment = environment(cut, &time);
    let body = match serde_json::to_vec(&News { about: ABOUT, cut, time }) {
        Ok(body) => body.into(),
        Err(error) => {
            let end = End { result: ActionResult::Failed, said: error.to_string() };
            let _ = ends.send((ticket, end));
            return;
        }
    };
    let ends = ends.clone();
    let hearer = Some(Hearer(Box::new(move |ended| {
        let _ = ends.send((ticket, end(ended)));
    })));
    notifier.tell(Message { about: ABOUT, replaces: None, target, body, environment, hearer });
}

/// What these messages are about.
const ABOUT: &str = "recovery";

fn environment(cut: &Cut, time: &str) -> Vec<(&'static str, String)> {
    let Cut { pool, backend, address, reason, probability } = cut;
    vec![
        ("GATEWAY_POOL", pool.clone()),
        ("GATEWAY_BACKEND", backend.clone()),
        ("GATEWAY_ADDRESS", address.to_string()),
        ("GATEWAY_REASON", reason.as_str().to_owned()),
        ("GATEWAY_PROBABILITY", format!("{probability:.3}")),
        ("GATEWAY_TIME", time.to_owned()),
    ]
}

fn end(Ended { how, said }: Ended) -> End {
    let result = match how {
        How::Delivered => ActionResult::Done,
        How::Failed => ActionResult::Failed,
        How::Late => ActionResult::TimedOut,
        How::Dropped => ActionResult::Dropped,
    };
    End { result, said }
}
