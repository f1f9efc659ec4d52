//! A small peer on iroh-blobs, which the lab runs beside Tidegate: `iroh-peer seed STORE ADDRESS FILE`
//! prints a ticket and serves, `iroh-peer fetch STORE ADDRESS TICKET` fetches into its store on disk and ends.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, bail};
use iroh::endpoint::{Endpoint, presets};
use iroh::protocol::Router;
use iroh::{EndpointAddr, RelayMode};
use iroh_blobs::BlobsProtocol;
use iroh_blobs::store::fs::FsStore;
use iroh_blobs::ticket::BlobTicket;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["seed", store, address, file] => seed(store, address.parse()?, file).await,
        ["fetch", store, address, ticket] => fetch(store, address.parse()?, ticket.parse()?).await,
        _ => bail!("usage: iroh-peer seed STORE ADDRESS FILE | fetch STORE ADDRESS TICKET"),
    }
}

/// An endpoint that knows of nobody but whom it is told.
async fn endpoint(address: SocketAddr) -> Result<Endpoint> {
    let endpoint = Endpoint::builder(presets::Minimal).relay_mode(RelayMode::Disabled);
    Ok(endpoint.bind_addr(address)?.bind().await?)
}

async fn seed(store: &str, address: SocketAddr, file: &str) -> Result<()> {
    let store = FsStore::load(store).await?;
    let tag = store
        .blobs()
        .add_path(Path::new(file).canonicalize()?)
        .await?;
    let endpoint = endpoint(address).await?;
    let me = EndpointAddr::new(endpoint.id()).with_ip_addr(address);
    let router = Router::builder(endpoint)
        .accept(iroh_blobs::ALPN, BlobsProtocol::new(&store, None))
        .spawn();
    println!("{}", BlobTicket::new(me, tag.hash, tag.format));
    std::future::pending::<()>().await;
    router.shutdown().await?;
    Ok(())
}

async fn fetch(store: &str, address: SocketAddr, ticket: BlobTicket) -> Result<()> {
    let store = FsStore::load(store).await?;
    let endpoint = endpoint(address).await?;
    let connection = endpoint
        .connect(ticket.addr().clone(), iroh_blobs::ALPN)
        .await?;
    store
        .remote()
        .fetch(connection, ticket.hash_and_format())
        .await?;
    store.shutdown().await?;
    endpoint.close().await;
    Ok(())
}
