//! The body of an answer, which is sent to the client in pieces.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};

use super::{activity::Open, unread::AnswerRoom};

/// Largest piece in bytes. HTTP/2 buffers a whole chunk as soon as the client takes one byte, so long chunks are split.
const PIECE: usize = 64 << 10;

/// A body that reports to its connection whether the answer waits for the client or for the server.
pub struct ResponseBody {
    body: Body,
    /// The part of the last chunk that has not been sent yet.
    rest: Bytes,
    open: Open,
    _room: Option<AnswerRoom>,
}

impl ResponseBody {
    pub fn new(body: Body, open: Open, room: Option<AnswerRoom>) -> ResponseBody {
        open.waits_for_client();
        ResponseBody { body, rest: Bytes::new(), open, _room: room }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        self.open.waits_for_client();
        Frame::data(self.rest.split_to(self.rest.len().min(PIECE)))
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        // hyper polls when it has room for more bytes, so the client has read.
        self.open.is_read();
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            end => return Poll::Ready(end),
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => {
                self.rest = data;
                self.piece()
            }
            Err(trailers) => trailers,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, hint) = (self.rest.len() as u64, self.body.size_hint());
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{super::activity::Activity, *};

    #[tokio::test]
    async fn a_long_chunk_comes_in_pieces_and_whole() {
        for length in [0, 1, PIECE, PIECE + 1, 3 * PIECE] {
            let bytes: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let mut answer = ResponseBody::new(Body::from(bytes.clone()), Activity::new(Instant::now()).begin(), None);
            let (mut seen, mut left) = (Vec::new(), length as u64);
            while !answer.is_end_stream() {
                assert_eq!(answer.size_hint().exact(), Some(left));
                let polled = std::future::poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await;
                let piece = polled.unwrap().unwrap().into_data().unwrap();
                assert!(piece.len() <= PIECE);
                left -= piece.len() as u64;
                seen.extend_from_slice(&piece);
            }
            assert_eq!(seen, bytes);
        }
    }
}
