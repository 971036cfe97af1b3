//! Pages that are not empty without need and never larger than a message may be.

use prost::Message;

use crate::error::Error;
use crate::store::{Page, PageRequest, StoreError};

/// Bytes of a reply's rows; leaves room for everything around them.
pub(crate) const MAX_ROWS_BYTES: usize = proto::MAX_MESSAGE_BYTES - (64 << 10);

/// One page of rows that the caller may see, as messages. `fetch` reads a page of the store, `show` makes a
/// message of a row or hides it. A page of hidden rows is passed over; a page that is too large is read again in
/// halves.
pub(crate) async fn collect<Row, Msg, Fetch, Reading>(
    size: u32,
    token: String,
    fetch: Fetch,
    mut show: impl FnMut(Row) -> Option<Msg>,
) -> Result<(Vec<Msg>, String), Error>
where
    Msg: Message,
    Fetch: Fn(PageRequest) -> Reading,
    Reading: Future<Output = Result<Page<Row>, StoreError>>,
{
    let mut request = PageRequest { size, token };
    request.size = request.rows();
    loop {
        let page = fetch(request.clone()).await?;
        let shown: Vec<Msg> = page.items.into_iter().filter_map(&mut show).collect();
        let bytes: usize = shown.iter().map(|message| message.encoded_len() + 8).sum();
        if bytes > MAX_ROWS_BYTES && request.size > 1 {
            request.size /= 2;
            continue;
        }
        if shown.is_empty() && !page.next.is_empty() {
            request.token = page.next;
            continue;
        }
        return Ok((shown, page.next));
    }
}
