//! Every limit of Tidegate, in one place. What happens at a limit is written beside it.
//!
//! Units stand last in a name: `_bytes`, `_ms`, `_max` for counts.

mod coordinator;
mod swarm;

pub use coordinator::*;
pub use swarm::*;

use crate::time::Span;

// ---- content ---------------------------------------------------------------------------------

/// log2 of a group in BLAKE3 chunks of 1 KiB: 16 KiB, the unit of verification.
pub const GROUP_LOG2: u8 = 4;
/// Bytes in a group.
pub const GROUP_BYTES: u64 = 1024 << GROUP_LOG2;
/// Smallest piece.
pub const PIECE_MIN_BYTES: u64 = 256 << 10;
/// Largest piece.
pub const PIECE_MAX_BYTES: u64 = 4 << 20;
/// Pieces that a blob is aimed to have before the piece size is clamped.
pub const PIECES_AIM: u64 = 256;
/// Pieces of one blob; a larger blob is refused when it is named (`too_long`).
pub const PIECES_MAX: u64 = 1 << 18;
/// Largest blob: `PIECES_MAX` pieces of the largest size (1 TiB).
pub const BLOB_MAX_BYTES: u64 = PIECES_MAX * PIECE_MAX_BYTES;

/// FastCDC cut sizes: smallest, aimed at, largest.
pub const CHUNK_MIN_BYTES: u32 = 16 << 10;
/// See [`CHUNK_MIN_BYTES`].
pub const CHUNK_AVG_BYTES: u32 = 64 << 10;
/// See [`CHUNK_MIN_BYTES`].
pub const CHUNK_MAX_BYTES: u32 = 256 << 10;

/// Plain bytes in one frame of a carrier.
pub const FRAME_PLAIN_MAX_BYTES: u64 = 8 << 20;
/// Coded bytes of one frame: zstd's bound for incompressible input, rounded up generously.
pub const FRAME_CODED_MAX_BYTES: u64 = FRAME_PLAIN_MAX_BYTES + (64 << 10);
/// log2 of the zstd window that a decoder grants (64 MiB).
pub const ZSTD_WINDOW_LOG2_MAX: u32 = 26;
/// Reference that a delta may use.
pub const DELTA_REFERENCE_MAX_BYTES: u64 = 32 << 20;

/// Encoded index; a longer one is refused before it is fetched.
pub const INDEX_MAX_BYTES: u64 = 256 << 20;
/// Entries (files, directories, links) in one release.
pub const INDEX_ENTRIES_MAX: usize = 2_000_000;
/// Length of a path in bytes, and of a link's target.
pub const PATH_MAX_BYTES: usize = 4096;
/// Components in a path.
pub const PATH_DEPTH_MAX: usize = 128;

// ---- statements ------------------------------------------------------------------------------

/// Payload of one signed statement. Longer ones are refused unread.
pub const STATEMENT_MAX_BYTES: usize = 1 << 20;
/// Encoded envelope: payload in base64, plus signatures.
pub const ENVELOPE_MAX_BYTES: usize = STATEMENT_MAX_BYTES / 3 * 4 + (64 << 10);
/// A statement's short form stands for at most so many times its own bytes; where it would for more, the
/// statement travels as it is, and what says more is refused.
pub const TERSE_GROWTH_MAX: usize = 8;
/// Signatures in one envelope; more are refused, not skipped.
pub const SIGNATURES_MAX: usize = 32;
/// Keys in one role.
pub const ROLE_KEYS_MAX: usize = 32;
/// Delegations in one root.
pub const DELEGATIONS_MAX: usize = 32;
/// Products, or beginnings of their names, in one delegation.
pub const DELEGATION_PRODUCTS_MAX: usize = 64;
/// Issuing CAs that a root names: the one in use, and those that are on their way out.
pub const ISSUING_CAS_MAX: usize = 8;
/// Certificates from the issuing CA up to an enterprise's root, both counted, and their bytes: a node shows
/// them with its own.
pub const CA_CHAIN_MAX: usize = 5;
/// See [`CA_CHAIN_MAX`].
pub const CA_CHAIN_MAX_BYTES: usize = 12 << 10;
/// Root versions that are walked in one update.
pub const ROOT_WALK_MAX: usize = 1024;
/// What a signer's command may print: a signature of 64 bytes, in base64.
pub const SIGNER_REPLY_MAX_BYTES: u64 = 256;
/// A signer's command has so long, unless its file says otherwise ...
pub const SIGNER_PATIENCE: Span = Span::from_secs(60);
/// ... up to this.
pub const SIGNER_PATIENCE_MAX: Span = Span::from_secs(600);
/// A proof that an entry stands in the ledger.
pub const AUDIT_PROOF_MAX_BYTES: usize = 2048;
/// Sites in a topology.
pub const SITES_MAX: usize = 20_000;
/// Hours of a site in which other rates hold.
pub const RATE_HOURS_MAX: usize = 16;
/// Releases that one release depends on; as many that it conflicts with, and as many that it supersedes.
pub const RELATIONS_MAX: usize = 64;
/// Bounds of a version in one requirement.
pub const BOUNDS_MAX: usize = 4;
/// Releases that a plan's release stands on; as many barriers before it.
pub const CLOSURE_MAX: usize = 256;
/// A node that knows of a rollout by name only starts nothing until it has its plan and release, which may
/// go first, but for no longer than this after the last of such documents came.
pub const DOCUMENTS_PATIENCE: Span = Span::from_secs(60);
/// Waves in a plan.
pub const WAVES_MAX: usize = 256;
/// Cohorts that a plan may declare; each is a bit of a node's word.
pub const COHORTS_MAX: usize = 16;
/// Windows of a plan; as many blackouts, and as many quiet hours.
pub const HOURS_MAX: usize = 32;
/// Change freezes of a plan.
pub const FREEZES_MAX: usize = 32;
/// A node that had leave to start for so long and did not is not waited for by its wave's gate: long
/// enough for a maintenance window a day.
pub const ABSENT_AFTER: Span = Span::from_secs(25 * 3600);
/// Nodes that a plan may name one by one.
pub const PLAN_NODES_MAX: usize = 4096;
/// Rollouts that are alive at the same time; one more cannot be started.
pub const ROLLOUTS_MAX: usize = 64;
/// Orders that a node keeps to hand on; superseded ones fall out first, then the oldest.
pub const ORDERS_MAX: usize = 1024;
/// Artifacts in a manifest, and carriers of one artifact.
pub const ARTIFACTS_MAX: usize = 64;
/// Steps of a command recipe.
pub const STEPS_MAX: usize = 64;
/// Words of one argv, and bytes of one word.
pub const ARGV_MAX: usize = 256;
/// Revoked serials in a list.
pub const REVOKED_MAX: usize = 100_000;
/// Certificates that may be revoked within a day without operators' signatures. Some machines are lost every
/// day even in a large fleet; a hundred at once are a decision of several people, or a thief's.
pub const REVOCATIONS_PER_DAY_MAX: usize = 64;
/// Certificates a day by which a node lets the list grow without them: more than the coordinator gives, because
/// the two count days from different moments.
pub const REVOCATIONS_BELIEVED: u64 = 128;
/// Nodes in one statement that revokes many.
pub const MASS_REVOCATION_MAX: usize = 10_000;

// ---- control plane ---------------------------------------------------------------------------

/// A gossip message. Larger ones were seen to be lost near gossipsub's own limit of 64 KiB.
pub const GOSSIP_MAX_BYTES: usize = 16 << 10;
/// A control request or reply.
pub const CONTROL_MAX_BYTES: usize = 4 << 20;
/// Credentials that are exchanged at admission.
pub const CREDENTIALS_MAX_BYTES: usize = 16 << 10;
/// Admission must be through by then, or the connection is dropped.
pub const ADMISSION_TIMEOUT: Span = Span::from_secs(10);
/// A control request is answered by then, or has failed.
pub const CONTROL_REQUEST_TIMEOUT: Span = Span::from_secs(10);
/// Control requests under way in one process, in either direction; one more fails at once.
pub const CONTROL_REQUESTS_MAX: usize = 1024;
/// Bytes of peers' control requests that have no reply yet; one over it is dropped, so its asker gets
/// an error at once.
pub const CONTROL_WAITING_MAX_BYTES: usize = 64 << 20;
/// Events of the control plane that wait for the driver: at so many gossip loses its oldest, and
/// for the others the swarm waits.
pub const CONTROL_EVENTS_MAX: usize = 1024;
/// Contacts that a node keeps connections to; one more is refused and logged.
pub const CONTACTS_MAX: usize = 256;
/// Admitted control connections of a node; one more is refused. See [`COORDINATOR_CONNECTIONS_MAX`].
pub const CONNECTIONS_MAX: u32 = 512;
/// Admitted control connections of a coordinator: a delegate of each of so many sites. One more is
/// refused, and its delegate goes on asking until a place is free. Each takes a file descriptor.
pub const COORDINATOR_CONNECTIONS_MAX: u32 = 16_384;
/// Peers whose last certificate is remembered, to close their connections when it is revoked; the
/// one unseen for longest falls out. More than any node's connections.
pub const ADMITTED_MAX: usize = 65_536;
/// Statuses in one uplink request; the rest waits for the next.
pub const UPLINK_STATUSES_MAX: usize = 512;
/// Statuses that one exchange brings, so that its receipt fits a gossip message; more follow at once.
pub const RECEIPT_MARKS_MAX: usize = 64;
/// Members of one site that a node keeps in view; the longest unseen falls out.
pub const MEMBERS_MAX: usize = 4096;
/// Statuses of other nodes that a node keeps to hand on; acknowledged ones fall out first.
pub const STATUSES_MAX: usize = 16_384;
/// Control connections of a node inside its site.
pub const NEIGHBOURS_MAX: usize = 24;
/// Control connections inside the site at which a node lets go of those that others chose. Those who
/// choose a node are about as many as it chooses, here and there twice that; who is let go dials again.
pub const LINKS_MAX: usize = 2 * NEIGHBOURS_MAX;
/// Delegates of a site.
pub const DELEGATES: usize = 2;
/// Fetchers of a blob in a site, at most.
pub const FETCHERS_MAX: usize = 4;
/// Below this rate a site has a single fetcher: 2 Mbit/s in bytes a second.
pub const SINGLE_FETCHER_BELOW_BYTES_PER_S: u64 = 250_000;
/// Presence is gossiped when it changes, and else this often.
pub const PRESENCE_INTERVAL: Span = Span::from_secs(300);
/// Unheard for so long and not connected, a member counts as gone, should nobody notice it before.
pub const PRESENCE_LIFETIME: Span = Span::from_secs(960);
/// Who came into a site waits this long for others to speak before it owns anything.
pub const SITE_SETTLE: Span = Span::from_millis(1_000);
/// After its first connection in a site a node says that it is here: gossip needs a moment to form.
pub const SPEAK_AFTER: Span = Span::from_millis(500);
/// A neighbour whose connection broke is said to be missing if it cannot be made anew for so long.
pub const MISSING_AFTER: Span = Span::from_secs(3);
/// The same for one that was never connected.
pub const UNREACHED_AFTER: Span = Span::from_secs(8);
/// Who is said to be missing may refute it for so long.
pub const SUSPICION: Span = Span::from_secs(3);
/// Between two refutations of one node; doubles while it is accused, so that nobody makes it flood.
pub const REFUTE_MIN: Span = Span::from_secs(1);
/// See [`REFUTE_MIN`].
pub const REFUTE_MAX: Span = Span::from_secs(64);
/// Who accused a node that lives is not believed for so long; doubles. Nor does it accuse it again.
pub const DISCREDIT_MIN: Span = Span::from_secs(60);
/// See [`DISCREDIT_MIN`].
pub const DISCREDIT_MAX: Span = Span::from_secs(960);
/// Members that are remembered after they were dropped; the longest gone falls out.
pub const GONE_MAX: usize = 256;
/// A delegate asks one of them whether it is back this often; doubles.
pub const GREET_GONE_MIN: Span = Span::from_secs(15);
/// See [`GREET_GONE_MIN`].
pub const GREET_GONE_MAX: Span = Span::from_secs(300);
/// Members that are asked whether they are there, at the same time; the others wait.
pub const GREETS_MAX: usize = 8;
/// A delegate tells where it stands this often after a change; doubles while nothing changes.
pub const BEAT_MIN: Span = Span::from_secs(1);
/// See [`BEAT_MIN`].
pub const BEAT_MAX: Span = Span::from_secs(16);
/// Whose view differs from a delegate's asks for its list after this; doubles while that helps nothing.
pub const SURVEY_MIN: Span = Span::from_secs(1);
/// See [`SURVEY_MIN`].
pub const SURVEY_MAX: Span = Span::from_secs(64);
/// Addresses in a member's contact; one with more is not listened to.
pub const CONTACT_ADDRESSES_MAX: usize = 64;
/// An address in a member's contact; one with a longer one is not listened to.
pub const CONTACT_ADDRESS_MAX_BYTES: usize = 128;
/// Members that a node remembers across restarts; those that rank first for it.
pub const PEERS_REMEMBERED_MAX: usize = 32;
/// They are written down so long after a change.
pub const REMEMBER_PEERS_AFTER: Span = Span::from_secs(10);
/// And at most this often.
pub const REMEMBER_PEERS_AGAIN: Span = Span::from_secs(300);
/// Haves are batched for this long.
pub const HAVE_INTERVAL: Span = Span::from_millis(100);
/// A fetcher's claim waits this long for a better one: a LAN round trip, with room.
pub const CLAIM_WAIT: Span = Span::from_millis(50);
/// Without progress for this long, the next in rank takes a claimed piece over.
pub const CLAIM_LEASE: Span = Span::from_millis(5_000);
/// Who comes after one that let others wait for a lease, while nobody claims anything, is waited for only
/// so long.
pub const CLAIM_HURRY: Span = Span::from_millis(1_000);
/// On thin links a claim stands longer, up to this.
pub const CLAIM_LEASE_MAX: Span = Span::from_millis(60_000);
/// Between two exchanges of a delegate with the coordinator lies at least so much.
pub const UPLINK_INTERVAL: Span = Span::from_millis(1_000);
/// With nothing to tell, a delegate says that it is there this often.
pub const UPLINK_KEEPALIVE: Span = Span::from_secs(60);
/// What cannot wait is gathered for this long before it goes up: failures, and whatever nodes report
/// that their plan names one by one.
pub const FEED_URGENT: Span = Span::from_millis(500);
/// Other milestones are gathered for this long.
pub const FEED_GATHER: Span = Span::from_secs(8);
/// A start goes up only if no end follows within this time.
pub const FEED_STARTED: Span = Span::from_secs(60);
/// What is not acknowledged for so long after it was due is taken up by the second delegate.
pub const FEED_TAKEOVER: Span = Span::from_secs(15);
/// What the nodes of a site are at is told at most this often.
pub const STAGES_INTERVAL: Span = Span::from_secs(30);
/// Members of a site that are asked whether a node of it is alive: more than half of them must say that it is
/// not, which a third of a large site hardly ever is among them.
pub const WITNESSED_BY_MAX: usize = 31;
/// So many of them must say that it is not, however few there are.
pub const WITNESSED_BY_MIN: usize = 2;
/// Silent members that one witness names; of more the longest silent is forgotten.
pub const SILENT_MAX: usize = 64;
/// A witness speaks so long after it missed somebody, for all whom it misses by then, and at most this often.
pub const WITNESS_GATHER: Span = Span::from_secs(5);
/// Words of members that wait at a delegate, and as many in one message; of more the first by id wait for
/// their next word.
pub const WITNESS_WORDS_MAX: usize = 64;
/// A success stands unless its node falls silent within the soak of its wave; words about it are so long on
/// their way.
pub const WITNESS_LAG: Span = Span::from_secs(60);
/// Machines that were not let in and that a node has not told of yet, and as many in one message; of more
/// the longest unseen is forgotten.
pub const STRANGERS_MAX: usize = 64;
/// Who was not let in is gathered for so long before it is told.
pub const STRANGERS_GATHER: Span = Span::from_secs(2);
/// And is told at most this often, whoever knocks how often.
pub const STRANGERS_INTERVAL: Span = Span::from_secs(60);

// ---- install ---------------------------------------------------------------------------------

/// Output of a step or a health check that is kept: its last bytes.
pub const OUTPUT_TAIL_BYTES: usize = 1024;
/// Default time that one step may run.
pub const STEP_TIMEOUT: Span = Span::from_secs(600);
/// The longest that a hook may run.
pub const HOOK_TIME_MAX: Span = Span::from_secs(3600);
/// Attempts of one installation, whatever failed in them; each class of failure has its own number below it.
pub const INSTALL_ATTEMPTS_MAX: u32 = 24;

const _: () = assert!(PIECE_MIN_BYTES.is_multiple_of(GROUP_BYTES));
const _: () = assert!(PIECE_MAX_BYTES <= FRAME_PLAIN_MAX_BYTES);
const _: () = assert!(FRAME_PLAIN_MAX_BYTES.is_multiple_of(PIECE_MAX_BYTES));
const _: () = assert!(FRAME_PLAIN_MAX_BYTES <= 1 << ZSTD_WINDOW_LOG2_MAX);
const _: () = assert!(UNVERIFIED_MAX_BYTES >= 2 * GROUP_BYTES && CREDIT_MAX_BYTES < 1 << 32);
const _: () = assert!(TCP_IDLE.0 < TCP_UNASKED.0);
const _: () = assert!(TCP_PER_PEER_MAX < TCP_INCOMING_MAX && FETCHES_MAX <= TCP_IDLE_MAX);
const _: () = assert!(CLAIM_WAIT.0 < CLAIM_LEASE.0);
const _: () = assert!(WAN_FETCHES_MAX < FETCHES_MAX && WAN_FETCHES_MAX <= CLAIM_WINDOW);
const _: () = assert!(CLAIM_PIECES_MAX * 5 + 512 < GOSSIP_MAX_BYTES);
const _: () = assert!(QUEUED_INTERVAL.0 * 2 < SLOW_AFTER.0 && QUEUED_INTERVAL.0 < CLAIM_LEASE.0);
const _: () = assert!(PRESENCE_INTERVAL.0 * 3 < PRESENCE_LIFETIME.0);
const _: () =
    assert!(STRANGERS_MAX * 128 < CONTROL_MAX_BYTES && STRANGERS_MAX <= UNMANAGED_TOLD_MAX);
const _: () = assert!(REVOCATIONS_PER_DAY_MAX as u64 * 2 <= REVOCATIONS_BELIEVED);
const _: () = assert!(CA_CHAIN_MAX_BYTES + (2 << 10) < CREDENTIALS_MAX_BYTES);
