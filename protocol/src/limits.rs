//! Every limit of Tidegate, in one place. What happens at a limit is written beside it.
//!
//! Units stand last in a name: `_bytes`, `_ms`, `_max` for counts.

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

// ---- data plane ------------------------------------------------------------------------------

/// Ranges in one blob request.
pub const REQUEST_RANGES_MAX: usize = 256;
/// A blob request on the wire.
pub const REQUEST_MAX_BYTES: usize = 8 << 10;
/// A batch of haves on the wire: the bitmap of the largest blob and its name.
pub const NOTICE_MAX_BYTES: usize = (PIECES_MAX / 8) as usize + 1024;
/// Fetches that a node has under way with one peer.
pub const FETCHES_PER_PEER_MAX: usize = 4;
/// Fetches that a node has under way in all.
pub const FETCHES_MAX: usize = 32;
/// Requests that are served at the same time; one more is answered with `Busy`.
pub const UPLOADS_MAX: usize = 512;
/// Of them, requests of one peer: room for those that it gave up and that we have not noticed yet.
pub const UPLOADS_PER_PEER_MAX: usize = 2 * FETCHES_PER_PEER_MAX;
/// Streams that a peer may hold open towards us.
pub const STREAMS_PER_PEER_MAX: u32 = 64;
/// A fetch below this rate for [`SLOW_AFTER`] is cut and tried elsewhere.
pub const SLOW_BYTES_PER_S: u64 = 1_024;
/// See [`SLOW_BYTES_PER_S`].
pub const SLOW_AFTER: Span = Span::from_secs(10);
/// The same inside a site, where nobody who works lets others wait.
pub const SLOW_NEAR_AFTER: Span = Span::from_secs(3);
/// A peer that sent wrong bytes is no source for this long.
pub const BAN: Span = Span::from_secs(3_600);
/// What is read from one peer, over all its streams, before it is verified: so much a liar wastes.
pub const UNVERIFIED_MAX_BYTES: u64 = 64 << 10;
/// A peer may have one unverified byte more for so many that it gave rightly ...
pub const CREDIT_GROWTH: u64 = 64;
/// ... up to this: as much as its fetches have buffers for.
pub const CREDIT_MAX_BYTES: u64 = 8 << 20;
/// Peers whose credit and waste are remembered; above, one that nobody asks is forgotten.
pub const CREDITED_PEERS_MAX: usize = 1024;
/// Data connections over TCP that peers have open; one more is closed at once, and its peer comes over QUIC.
pub const TCP_INCOMING_MAX: usize = 256;
/// Of them, connections of one peer, each of which carries one request at a time; above, its oldest is
/// closed.
pub const TCP_PER_PEER_MAX: usize = 2 * UPLOADS_PER_PEER_MAX;
/// TLS handshakes over TCP under way; one more is closed at once.
pub const TCP_HANDSHAKES_MAX: usize = 64;
/// Of them, those from one address.
pub const TCP_HANDSHAKES_PER_ADDRESS_MAX: usize = 16;
/// A peer that has not shaken hands over TCP by then is not there: room for one lost packet.
pub const TCP_CONNECT_TIMEOUT: Span = Span::from_millis(2_500);
/// Connections over TCP that an asker keeps for its next request, in all; of more, the longest unused is
/// closed.
pub const TCP_IDLE_MAX: usize = 64;
/// They are closed when they were not used for so long.
pub const TCP_IDLE: Span = Span::from_secs(10);
/// Who is asked closes a connection over TCP on which nothing was asked for so long.
pub const TCP_UNASKED: Span = Span::from_secs(20);
/// A transport that does not reach a peer is left alone for so long if the other one does; doubles.
pub const DETOUR_MIN: Span = Span::from_secs(60);
/// See [`DETOUR_MIN`].
pub const DETOUR_MAX: Span = Span::from_secs(3_600);
/// Peers that one transport does not reach; of more, the first to be tried again is forgotten.
pub const DETOURS_MAX: usize = 1024;
/// Payload pieces written at once by a paced sender.
pub const PACED_WRITE_MAX_BYTES: usize = 64 << 10;

// ---- swarm -----------------------------------------------------------------------------------

/// Blobs that the swarm keeps an eye on; idle ones fall out first, their files stay.
pub const SWARM_BLOBS_MAX: usize = 256;
/// Blobs not tracked here whose askers are remembered; more are not.
pub const STRANGE_BLOBS_MAX: usize = 64;
/// Peers to which a node turns for a blob, beside its likely fetchers.
pub const SWARM_NEIGHBOURS_MAX: usize = 8;
/// Peers whose pieces of one blob are known; more are not listened to.
pub const HOLDERS_MAX: usize = 4 * NEIGHBOURS_MAX;
/// Peers that hear of pieces won of one blob; later ones are answered once.
pub const INTERESTED_MAX: usize = 4 * NEIGHBOURS_MAX;
/// A neighbour that was told of an interest is told again after this long: notices may be lost.
pub const INTEREST_AGAIN: Span = Span::from_secs(10);
/// Sources that are paused, by blob; the first falls out.
pub const TROUBLES_MAX: usize = 4096;
/// First pause after a source failed; it doubles.
pub const RETRY_FIRST: Span = Span::from_millis(250);
/// Longest pause after a source was busy.
pub const RETRY_BUSY_MAX: Span = Span::from_secs(2);
/// Longest pause after a source failed.
pub const RETRY_MAX: Span = Span::from_secs(10);
/// Failures in a row after which what a peer said it holds is forgotten.
pub const RETRY_PATIENCE: u32 = 3;
/// Twice so long a peer's word is not taken then; doubles each time that it comes to that again,
pub const DISTRUST: Span = Span::from_secs(20);
/// so many times.
pub const DISTRUST_DOUBLES_MAX: u32 = 5;
/// So many pieces of a blob a node brings over the WAN before anybody took one from it,
pub const TRIAL_PIECES: usize = 2;
/// and if nobody does for so long,
pub const TRIAL_WAIT: Span = Span::from_secs(3);
/// it leaves the rest to others for so long; doubles each time,
pub const STEP_BACK: Span = Span::from_secs(40);
/// so many times.
pub const STEP_BACK_DOUBLES_MAX: u32 = 5;
/// Longest pause after this machine could not write.
pub const STORAGE_RETRY_MAX: Span = Span::from_secs(60);
/// Pauses of that kind before it is reported; the node goes on trying.
pub const STORAGE_PATIENCE: u32 = 3;
/// Those who lack a piece hear of it in waves: of so many that their fetches are as many bytes as
/// a link of 1 Gbit/s serves until the next,
pub const NEWS_BYTES_PER_MS: u64 = 128 << 10;
/// and of so many nodes at least.
pub const NEWS_WAVE_MIN: u64 = 4;
/// Where the network is faster a wave may be so many times as large.
pub const NEWS_WAVES_MAX: u64 = 16;
/// Pieces of a blob of which not everybody has heard yet; of more, all hear at once.
pub const NEWS_PIECES_MAX: usize = 256;
/// Pieces that a node claims ahead.
pub const CLAIM_WINDOW: usize = 8;
/// Pieces in one gossiped claim; more go into the next. A longer foreign one is cut.
pub const CLAIM_PIECES_MAX: usize = 1024;
/// The first so many missing pieces are looked at when leases are judged.
pub const EXPECT_WINDOW: usize = 64;
/// A fetcher that renews its claims and wins nothing for so many leases has stalled.
pub const IDLE_LEASES: u64 = 24;
/// What a node had begun to bring when it was lost from sight is left to it for so long, while there is
/// anything else to bring.
pub const ORPHAN_PATIENCE: Span = Span::from_secs(60);
/// Such pieces of one blob; more are brought at once.
pub const ORPHANS_MAX: usize = 64;
/// Fetches over the WAN that a node has under way, and the same under a cap.
pub const WAN_FETCHES_MAX: usize = 4;
/// See [`WAN_FETCHES_MAX`].
pub const WAN_FETCHES_CAPPED_MAX: usize = 2;
/// Inside the site a node has fetches of so many bytes under way at once, though a few at least.
pub const LAN_UNDER_WAY_BYTES: u64 = 32 << 20;
/// Inside the site a second holder is asked for a piece that has been on its way for so long, when
/// nothing else is left to ask for.
pub const ENDGAME_AFTER: Span = Span::from_secs(2);

// ---- relay between sites -----------------------------------------------------------------------

/// Holders in one referral, and those to which an asker says it was referred in vain.
pub const REFERRALS_MAX: usize = 2;
/// A referral on the wire.
pub const REFERRAL_MAX_BYTES: usize = 4 << 10;
/// An asker that was referred in vain so often is served by the origin itself.
pub const SPURNED_MAX: usize = REFERRALS_MAX;
/// Requests of one site that wait at the origin; one more is answered with `Busy`.
pub const REFERRALS_WAITING_MAX: usize = 64;
/// Who waits at the origin is told so this often, so that it knows that it is not forgotten.
pub const QUEUED_INTERVAL: Span = Span::from_millis(4_000);
/// Who waited at the origin for so long, beside the time that its site's link needs for what it asked for
/// before, is served by the origin.
pub const REFERRAL_WAIT_MAX: Span = Span::from_secs(300);
/// Transfers that one site takes from others, or gives to them, at the same time, by referral.
pub const REFERRED_MAX: u32 = 16;
/// The same where the topology says no rate.
pub const REFERRED_UNRATED_MAX: u32 = 4;
/// Requests of other sites that one node serves at the same time; one more is answered with `Busy`.
pub const GUESTS_MAX: usize = REFERRED_MAX as usize;
/// Fetches over the WAN that a node has under way or waiting where sites relay.
pub const WAN_FETCHES_RELAY_MAX: usize = 4;
/// Blobs whose spreading over the sites the origin follows; of more, the longest unasked falls out.
pub const SPREADS_MAX: usize = 64;
/// Nodes of one site that the origin knows to hold pieces of a blob; more are not referred to.
pub const SPREAD_HOLDERS_MAX: usize = 8;
/// Holders of one piece that are tried first; beyond them, any site with room is.
pub const SPREAD_LISTED_MAX: usize = 64;
/// A blob with more pieces than this is served to everybody by the origin itself.
pub const SPREAD_PIECES_MAX: u32 = 16_384;
/// Nobody is referred to a holder that failed for so long.
pub const SPURN: Span = Span::from_secs(30);

// ---- install ---------------------------------------------------------------------------------

/// Output of a step or a health check that is kept: its last bytes.
pub const OUTPUT_TAIL_BYTES: usize = 1024;
/// Default time that one step may run.
pub const STEP_TIMEOUT: Span = Span::from_secs(600);
/// The longest that a hook may run.
pub const HOOK_TIME_MAX: Span = Span::from_secs(3600);
/// Attempts of one installation, whatever failed in them; each class of failure has its own number below it.
pub const INSTALL_ATTEMPTS_MAX: u32 = 24;

// ---- coordinator -----------------------------------------------------------------------------

/// An API request's body.
pub const API_BODY_MAX_BYTES: usize = 8 << 20;
/// Tokens that are open at the same time.
pub const TOKENS_MAX: usize = 10_000;
/// Tokens for the API.
pub const API_TOKENS_MAX: usize = 1_000;
/// A token for the API lives at most so long; a longer one is refused.
pub const API_TOKEN_LIFE_MAX: Span = Span::from_secs(366 * 86_400);
/// Machines that were not let in and are remembered.
pub const UNMANAGED_MAX: usize = 4_096;
/// Of them, those of which one node told; of more its own longest unseen is forgotten.
pub const UNMANAGED_TOLD_MAX: usize = 256;
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
