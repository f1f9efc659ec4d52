//! Requests of other sites' nodes: the driver is asked who serves them, and who waits for the answer is
//! told so from time to time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use node_core::contract::{Door, Service, Ticket, Wanted};
use protocol::limits::{GROUP_BYTES, QUEUED_INTERVAL};
use protocol::pieces::Geometry;
use protocol::wire::{Contact, DataReply, DataRequest};
use tokio::sync::{mpsc, oneshot};

use super::codec::{self, ExchangeError};
use super::serve::{Asker, Reply};
use super::{DataEvent, Inner};

/// Those who wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Doors {
    door: Mutex<Door>,
    count: AtomicU64,
    waiting: Mutex<HashMap<Ticket, oneshot::Sender<Service>>>,
}

impl Doors {
    pub(super) fn keep(&self, door: Door) {
        *self.door.lock().expect("no panic under this lock") = door;
    }

    fn door(&self) -> Door {
        *self.door.lock().expect("no panic under this lock")
    }

    pub(super) fn answer(&self, ticket: Ticket, service: Service) {
        let waiting = self.waiting().remove(&ticket);
        // Whoever waited may be gone.
        waiting.map(|waiting| waiting.send(service));
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<Ticket, oneshot::Sender<Service>>> {
        self.waiting.lock().expect("no panic under this lock")
    }
}

/// A guest that the driver knows of. When dropped the driver hears that it left.
pub(super) struct Guest {
    ticket: Ticket,
    doors: Arc<Doors>,
    events: mpsc::Sender<DataEvent>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.doors.waiting().remove(&self.ticket);
        let (events, left) = (self.events.clone(), DataEvent::Left(self.ticket));
        // The driver may be busy, and it must hear of it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { events.send(left).await });
        }
    }
}

/// How a request is to be answered.
pub(super) enum Answer {
    /// Served, with no more than so many bytes a second (0: no limit), as long as the guest is kept.
    Send(u64, Option<Guest>),
    /// With this reply.
    Reply(DataReply),
}

/// Asks the driver, if the asker is of another site.
pub(super) async fn ask(
    inner: &Arc<Inner>,
    asker: &Asker,
    request: &DataRequest,
    to: &mut impl Reply,
) -> Result<Answer, ExchangeError> {
    let door = inner.doors.door();
    if door == Door::Shut {
        return Ok(Answer::Reply(DataReply::Refused));
    }
    let site = inner.tallies.of(asker.remote.ip()).site.clone();
    let Some(site) = site.filter(|site| {
        door == Door::Asks && inner.tallies.of(asker.own).site.as_ref() != Some(site)
    }) else {
        return Ok(Answer::Send(0, None));
    };
    let ticket = Ticket(inner.doors.count.fetch_add(1, Ordering::Relaxed));
    let (answer, mut answered) = oneshot::channel();
    inner.doors.waiting().insert(ticket, answer);
    let guest = Guest {
        ticket,
        doors: inner.doors.clone(),
        events: inner.events.clone(),
    };
    let wanted = Wanted {
        ticket,
        from: Contact {
            node: asker.node,
            control: [].into(),
            data: asker.data,
        },
        site,
        blob: request.blob,
        pieces: pieces_of(request),
        spurned: request.spurned.clone(),
    };
    if inner.events.send(DataEvent::Wanted(wanted)).await.is_err() {
        return Ok(Answer::Reply(DataReply::Busy));
    }
    loop {
        tokio::select! {
            service = &mut answered => {
                return Ok(match service.unwrap_or(Service::Busy) {
                    Service::Send { max_bytes_per_s } => Answer::Send(max_bytes_per_s, Some(guest)),
                    Service::Refer(referral) => Answer::Reply(DataReply::Referred(referral)),
                    Service::Busy => Answer::Reply(DataReply::Busy),
                    Service::Refuse => Answer::Reply(DataReply::Refused),
                });
            }
            () = tokio::time::sleep(QUEUED_INTERVAL.as_duration()) => {
                codec::write_reply(to, DataReply::Queued).await?;
            }
            () = to.gone() => {
                let gone = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                return Err(gone.into());
            }
        }
    }
}

fn pieces_of(request: &DataRequest) -> Vec<u32> {
    let cut = Geometry::of(request.blob.length);
    let mut pieces: Vec<u32> = request
        .groups
        .iter()
        .flat_map(|(start, end)| cut.pieces_of_bytes(start * GROUP_BYTES..end * GROUP_BYTES))
        .collect();
    pieces.dedup();
    pieces
}
