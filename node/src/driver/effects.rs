//! From action to effect: one flat match.

use node_core::contract::{Action, Event, FetchOutcome, Record, Ticket};
use protocol::limits::{BAN, CONTROL_MAX_BYTES, GOSSIP_MAX_BYTES};
use protocol::status::NodeStatus;
use protocol::versioned::Versioned;
use protocol::wire::{Class, Contact, ControlReply, ControlRequest, SiteMessage, site_topic};
use protocol::{BlobRef, NodeId};
use tokio::sync::mpsc;

use super::{Driver, Input, Question, answer};
use crate::net::data::{DataPlane, FetchEnd, FetchJob};

/// Reports of progress that wait to be handed on; the next report carries what did not fit.
const PROGRESS_MAX: usize = 16;

/// What is remembered is in force: the data plane maps addresses to sites by the topology.
pub(super) fn in_force(record: &Record, data: &DataPlane) {
    if let Record::Topology(topology) = record {
        data.set_topology(std::sync::Arc::new((**topology).clone()));
    }
}

impl Driver {
    /// Starts what an action asks for.
    pub(super) async fn effect(&mut self, action: Action) {
        match action {
            // The loop gathers these two into commits.
            Action::Remember(_) | Action::Forget(_) => {}
            Action::Gossip(message) => self.gossip(&message),
            Action::GossipStatus(status) => {
                self.gossip(&SiteMessage::Status(status.sign(self.identity.key())));
            }
            Action::JoinSite(site) => {
                let fleet = self.config.fleet;
                self.control
                    .join(site.map(|site| site_topic(&fleet, &site)));
            }
            Action::Connect(contact) => self.control.connect(contact),
            Action::Disconnect(node) => self.control.disconnect(node),
            Action::Ask {
                ticket,
                to,
                request,
                own_statuses,
            } => self.ask(ticket, to, *request, &own_statuses),
            Action::Reply { ticket, reply } => {
                if let Some(sender) = self.asked.remove(&ticket) {
                    answer(sender, &reply);
                }
            }
            Action::Notify { to, notice } => self.data.notify(to, notice),
            Action::OpenBlob { ticket, blob } => {
                let shelf = self.shelf.clone();
                self.beside(shelf.open(ticket, blob));
            }
            // Waited for, so that opening the same blob again finds it gone.
            Action::DropBlob(blob) => self.shelf.clone().drop_blob(blob).await,
            Action::Fetch {
                ticket,
                from,
                blob,
                pieces,
                class,
                wan,
                reason: _,
                max_bytes_per_s,
                spurned,
            } => {
                let limit = max_bytes_per_s;
                self.fetch(ticket, from, blob, &pieces, class, wan, limit, spurned);
            }
            Action::Doorkeep(door) => self.data.doorkeep(door),
            Action::Serve { ticket, service } => self.data.serve(ticket, service),
            Action::CancelFetch(ticket) => {
                if let Some(fetch) = self.fetches.get(&ticket) {
                    fetch.cancel();
                }
            }
            Action::ReadIndex {
                ticket,
                index,
                pack,
            } => {
                let shelf = self.shelf.clone();
                self.beside(shelf.read_index(ticket, index, pack));
            }
            Action::Reuse {
                ticket,
                index,
                pack,
                donors,
            } => {
                let shelf = self.shelf.clone();
                self.beside(shelf.reuse(ticket, index, pack, donors));
            }
            Action::ReadFrames {
                ticket,
                carrier,
                pack,
            } => {
                let shelf = self.shelf.clone();
                self.beside(shelf.read_frames(ticket, carrier, pack));
            }
            Action::Decode {
                ticket,
                carrier,
                index,
                pack,
                frame,
            } => {
                let shelf = self.shelf.clone();
                self.beside(shelf.decode(ticket, carrier, index, pack, frame));
            }
            Action::Step {
                ticket,
                install_id,
                release,
                before,
                warrant,
                step,
            } => {
                let shelf = self.shelf.clone();
                self.beside(shelf.step(ticket, install_id, release, before, warrant, step));
            }
            Action::Ban { peer, event } => self.bar(peer, event),
            Action::Pace { site, bytes_per_s } => self.data.set_pace(site, bytes_per_s),
            Action::PaceSelf(rates) => self.data.set_own_pace(rates),
            Action::GiveNotice { rollout, line } => {
                tracing::info!(event = "notice", "{rollout}: {line}");
                self.tasks
                    .spawn(crate::install::show(self.notify.clone(), line));
            }
            Action::Granted { ticket, answer } => {
                if let Some(reply) = self.wishes.remove(&ticket) {
                    // Whoever wished may have gone.
                    let _ = reply.send(answer);
                }
            }
            Action::Note { event, line } => tracing::info!(event, "{line}"),
        }
    }

    /// Runs an effect beside the loop; its event comes back through the channel.
    fn beside(&mut self, effect: impl Future<Output = Event> + Send + 'static) {
        let results = self.results.clone();
        self.tasks.spawn(async move {
            let event = effect.await;
            // Fails only when the loop has ended; nobody waits for the event then.
            let _ = results.send(Input::Event(Box::new(event))).await;
        });
    }

    fn gossip(&mut self, message: &SiteMessage) {
        let bytes = message.to_bytes();
        if bytes.len() > GOSSIP_MAX_BYTES {
            let line = format!("a gossip message of {} bytes was not sent", bytes.len());
            self.notes.say("too_long", line);
        } else {
            self.control.publish(bytes);
        }
    }

    fn ask(
        &mut self,
        ticket: Ticket,
        to: Contact,
        mut request: ControlRequest,
        own: &[NodeStatus],
    ) {
        let (fleet, key) = (self.config.fleet, self.identity.key());
        let own = own.iter().map(|status| status.sign(key));
        match &mut request {
            ControlRequest::Uplink {
                statuses, stages, ..
            } => {
                own.for_each(|signed| statuses.push(fleet, signed));
                stages.iter_mut().for_each(|stages| stages.sign(fleet, key));
            }
            ControlRequest::Report { statuses } => statuses.extend(own),
            ControlRequest::Inventory(inventory) => inventory.sign(fleet, key),
            ControlRequest::Witness(words) => {
                let own = words.iter_mut().filter(|word| word.sig.is_empty());
                own.for_each(|word| word.sign(fleet, key));
            }
            _ => {}
        }
        let bytes = request.to_bytes();
        let question = Question::from(&request);
        let from = to.node;
        let (control, results, asks) = (
            self.control.clone(),
            self.results.clone(),
            self.asks.clone(),
        );
        self.tasks.spawn(async move {
            let reply = if bytes.len() > CONTROL_MAX_BYTES {
                tracing::warn!(event = "too_long", "a request to {from} is too long");
                None
            } else {
                let _room = asks.acquire_owned().await;
                match control.request(to, bytes).await {
                    Ok(bytes) => ControlReply::from_bytes(&bytes)
                        .inspect_err(|e| tracing::warn!(event = "malformed", "from {from}: {e}"))
                        .ok(),
                    Err(e) => {
                        tracing::debug!("{e}");
                        None
                    }
                }
            };
            let answer = Input::Answer {
                ticket,
                from,
                question,
                reply,
            };
            let _ = results.send(answer).await;
        });
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one action")]
    fn fetch(
        &mut self,
        ticket: Ticket,
        from: Contact,
        blob: BlobRef,
        pieces: &[u32],
        class: Class,
        wan: bool,
        max_bytes_per_s: u64,
        spurned: Vec<NodeId>,
    ) {
        let Some(open) = self.shelf.blob(blob) else {
            let outcome = FetchOutcome::Storage;
            self.beside(async move { Event::FetchEnded { ticket, outcome } });
            return;
        };
        let mut groups: Vec<(u64, u64)> = Vec::new();
        for (start, end) in pieces.iter().flat_map(|piece| open.missing_groups(*piece)) {
            match groups.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => groups.push((start, end)),
            }
        }
        if groups.is_empty() {
            let outcome = FetchOutcome::Complete;
            self.beside(async move { Event::FetchEnded { ticket, outcome } });
            return;
        }
        let job = FetchJob {
            from,
            blob: open,
            groups,
            class,
            max_bytes_per_s,
            wan,
            spurned,
        };
        let (report, mut progress) = mpsc::channel(PROGRESS_MAX);
        let (handle, end) = self.data.fetch(job, report);
        self.fetches.insert(ticket, handle);
        let results = self.results.clone();
        self.tasks.spawn(async move {
            // Ends when the fetch drops its sender, which it does at its own end.
            while let Some(bytes) = progress.recv().await {
                let event = Event::FetchProgress { ticket, bytes };
                let _ = results.send(Input::Event(Box::new(event))).await;
            }
            let event = match end.await {
                Ok(FetchEnd {
                    referral: Some(referral),
                    ..
                }) => {
                    let referral = Box::new(referral);
                    Event::FetchReferred { ticket, referral }
                }
                end => {
                    let outcome = end.map_or(FetchOutcome::Broken, |end| end.outcome);
                    Event::FetchEnded { ticket, outcome }
                }
            };
            let _ = results.send(Input::Event(Box::new(event))).await;
        });
    }

    /// A source of content no more. The control connection stays: halts pass through it.
    fn bar(&mut self, peer: NodeId, event: &'static str) {
        let span = BAN.as_duration().as_secs();
        let line = format!("{peer} sent wrong bytes: nothing is fetched from it for {span} s");
        self.notes.say(event, line);
        self.data.bar(peer);
    }
}
