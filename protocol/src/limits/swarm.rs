//! Limits of the data plane, the swarm, and relay between sites.

use super::*;

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
