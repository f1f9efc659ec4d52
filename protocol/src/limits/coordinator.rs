//! Limits of the coordinator and its API.

use super::*;

// ---- coordinator -----------------------------------------------------------------------------

/// An API request's body.
pub const API_BODY_MAX_BYTES: usize = 8 << 20;
/// Tokens that are open at the same time.
pub const TOKENS_MAX: usize = 10_000;
/// Subnets that a token may be bound to.
pub const TOKEN_SUBNETS_MAX: usize = 16;
/// Machines that wait until an operator lets them in; one more is refused until a token ends.
pub const ENROLMENTS_WAITING_MAX: usize = 1_024;
/// Tokens for the API.
pub const API_TOKENS_MAX: usize = 1_000;
/// A token for the API lives at most so long; a longer one is refused.
pub const API_TOKEN_LIFE_MAX: Span = Span::from_secs(366 * 86_400);
/// Machines that were not let in and are remembered.
pub const UNMANAGED_MAX: usize = 4_096;
/// Of them, those of which one node told; of more its own longest unseen is forgotten.
pub const UNMANAGED_TOLD_MAX: usize = 256;
/// Foreign machines that are remembered; of more the one that was not heard for longest is forgotten.
pub const FOREIGN_MAX: usize = 4_096;
/// All texts of a foreign machine's inventory together; a longer one is refused.
pub const FOREIGN_INVENTORY_MAX_BYTES: usize = 16 << 10;
/// Products that a foreign machine says to have; more are refused.
pub const FOREIGN_SOFTWARE_MAX: usize = 256;
/// Rules for foreign machines in a topology; more are refused.
pub const FOREIGN_RULES_MAX: usize = 32;
/// The name of a rule for foreign machines; a longer one is refused.
pub const FOREIGN_NAME_MAX_BYTES: usize = 64;
/// Nodes of a fleet.
pub const NODES_MAX: usize = 1_000_000;
/// Nodes that one entry of the ledger names, far below the longest entry; more take several entries.
pub const LEDGERED_NODES_MAX: usize = 10_000;
/// A bulletin's life; it is renewed at half of it.
pub const BULLETIN_LIFE: Span = Span::from_secs(86_400);
/// A reason, a label or another short text of a person.
pub const TEXT_MAX_BYTES: usize = 1024;
/// Different recalls of one rollout that wait for signatures; the oldest falls out.
pub const RECALLS_WAITING_MAX: usize = 8;
/// Different lifts of one halt that wait for signatures; the oldest falls out.
pub const LIFTS_WAITING_MAX: usize = 8;
/// Points of one curve of a review; of more, every so many-th and the last are kept.
pub const REVIEW_POINTS_MAX: usize = 200;
/// Groups of failures in a review; the rest are counted together.
pub const REVIEW_FAILURES_MAX: usize = 50;
/// Nodes that a group of failures names.
pub const REVIEW_NODES_MAX: usize = 5;
/// An enrolment token lives at most so long; a longer one is refused.
pub const TOKEN_LIFE_MAX: Span = Span::from_secs(366 * 86_400);
/// Certificates that one token gives one node, so that a repeated enrolment succeeds; one more is refused.
pub const REISSUES_MAX: usize = 8;
/// Labels of one node; more are refused at its enrolment.
pub const LABELS_MAX: usize = 64;
/// Attributes that a node tells of itself, drivers among them; more are refused, and a node tells no more.
pub const ATTRIBUTES_MAX: usize = 64;
/// Releases that a fleet assesses at a time; one more is refused. Each takes an attribute of every node.
pub const ASSESSMENTS_MAX: usize = 8;
const _: () = assert!(ASSESSMENTS_MAX * 2 < ATTRIBUTES_MAX);
/// An assessment ends by itself after so long.
pub const ASSESSMENT_LIFE: Span = Span::from_secs(30 * 86_400);
/// Answers to an assessment that the coordinator takes in a second, over all nodes.
pub const ASSESSMENT_ANSWERS_PER_S: u64 = 200;
/// The least lease of a restart slot: a holder says four times in it that it lives.
pub const SLOT_LEASE_MIN: Span = Span::from_secs(60);
/// The longest lease of a restart slot that a plan may ask for, and that a word of a peer has.
pub const SLOT_LEASE_MAX: Span = Span::from_secs(86_400);
/// Groups of restart slots of which a node keeps what it heard; of more it hears nothing.
pub const SLOT_GROUPS_MAX: usize = 32;
/// Holders and claims of one group that a node keeps; more are not heard.
pub const SLOT_NODES_MAX: usize = 256;
/// An encoded inventory: labels and attributes at their limits, and what stands around them.
pub const INVENTORY_MAX_BYTES: usize =
    (LABELS_MAX + ATTRIBUTES_MAX) * 2 * (TEXT_MAX_BYTES + 3) + 256;
const _: () = assert!(INVENTORY_MAX_BYTES < CONTROL_MAX_BYTES);
/// A node tells its inventory at its start, spread over so long, and again so long after a failure.
pub const INVENTORY_PATIENCE: Span = Span::from_secs(60);
/// A change of the inventory is told so long after the last one was; it is ledgered each time.
pub const INVENTORY_INTERVAL: Span = Span::from_secs(6 * 3600);
/// The text of a filter; a longer one is refused.
pub const FILTER_MAX_BYTES: usize = 2048;
/// Parentheses and negations inside each other in a filter; one more is refused.
pub const FILTER_DEPTH_MAX: usize = 16;
/// A restored coordinator listens so long for sites that do not answer, before it gives orders again.
pub const REGAIN_MAX: Span = Span::from_secs(600);
/// Nodes that a restored coordinator asks at the same time for what they have; more wait for their next
/// report.
pub const WITNESSES_MAX: usize = 16;
/// Answers with orders that a restored coordinator takes from one node in a row.
pub const TESTIMONY_PAGES_MAX: usize = 64;
/// Certificates hold from so long before they were issued, for machines whose clocks are behind.
pub const CERTIFICATE_SKEW: Span = Span::from_secs(86_400);
/// Renewals of one node that the coordinator counts; it gives no more within half a certificate's life.
pub const RENEWALS_MAX: usize = 8;
/// Machines that one enrolment and its copies may become; more come from a sealed image, with a token.
pub const COPIES_MAX: usize = 16;
/// Orders that wait to be pushed; more are left to the delegates' keepalives.
pub const PUSHES_WAITING_MAX: usize = 256;
/// Control requests that the coordinator answers at the same time; one more is dropped, and asked again.
pub const UPLINKS_MAX: usize = 256;
/// Pushes of orders under way at the same time; more wait.
pub const PUSHES_MAX: usize = 256;
/// A push that was not answered for so long has failed.
pub const PUSH_PATIENCE: Span = Span::from_secs(2);
/// A push that failed is tried again after this, as long as its delegate is connected.
pub const PUSH_AGAIN: Span = Span::from_millis(500);
/// Tries of a push; after them it is left to the delegate's next report.
pub const PUSH_TRIES: u32 = 12;
/// Members that a node without a topology is told, to ask them for it.
pub const GUIDES_MAX: usize = 2;
/// Who asks for guides where nobody is yet fetches the topology from the coordinator; for so long the
/// others from there are told to ask it.
pub const SCOUT_LIFE: Span = Span::from_secs(10);
/// Members that a newcomer is told; enough to find its site's gossip.
pub const MEMBERS_TOLD_MAX: usize = 8;
/// Delegates that the coordinator pushes to; more are left to their uplinks.
pub const DELEGATES_MAX: usize = 50_000;
/// Events of the live view that are kept; the oldest fall out.
pub const EVENTS_KEPT_MAX: usize = 4096;
/// Events in one answer; the rest comes with the next.
pub const EVENTS_TOLD_MAX: usize = 512;
/// The origin's log; a longer one is set aside when the origin is started.
pub const ORIGIN_LOG_MAX_BYTES: u64 = 16 << 20;
/// Delegates of one site whose last view of it the coordinator keeps, so that a report without news
/// costs little; of more, the longest unheard falls out and is looked through anew.
pub const SIGHTINGS_MAX: usize = 2 * DELEGATES;
/// Questions that wait for the coordinator's brain; one more is told to come back.
pub const DESK_WAITING_MAX: usize = 1024;
/// Questions that share one commit of the ledger.
pub const DESK_BATCH_MAX: usize = 64;
/// API connections at the same time; more wait in the system's queue.
pub const API_CONNECTIONS_MAX: usize = 1024;
/// Requests that one address may put to the API in one go.
pub const API_BURST: u32 = 4000;
/// And how many more with every second.
pub const API_PER_SECOND: u32 = 200;
/// Of these, such as ask for a certificate: a site may stand behind one address, and be started at once.
pub const CERTIFICATES_BURST: u32 = 2000;
/// And how many more with every second.
pub const CERTIFICATES_PER_SECOND: u32 = 50;
/// Addresses whose rates are told apart; more share one.
pub const API_ADDRESSES_MAX: usize = 16_384;
/// A client that waits for events is answered by then.
pub const API_WAIT_MAX: Span = Span::from_secs(30);
/// A damaged ledger up to so long is searched for its first bad entry.
pub const SALVAGE_MAX_BYTES: u64 = 2 << 30;
/// A key file; what stands behind is not read.
pub const KEY_FILE_MAX_BYTES: u64 = 16 << 10;
