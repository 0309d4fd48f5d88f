//! Answers that break off, come too slowly, or are none.

use std::time::Duration;

use pipelet_tests::Step;

use super::{
    BROKEN_OFF, Case, NO_ANSWER, NOT_HTTP, UNFINISHED, case, check_both, cut, failed, rejected,
    scripted, unsent,
};

const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test]
async fn that_break_off() {
    check_both(|| {
        let reset = |before: Vec<Step>| [before, vec![Step::Reset]].concat();
        vec![
            scripted("closed at once", vec![], unsent(BROKEN_OFF)),
            scripted(
                "closed within the request",
                vec![Step::ReadSome],
                failed(BROKEN_OFF),
            ),
            scripted(
                "closed instead of an answer",
                vec![Step::Read],
                failed(BROKEN_OFF),
            ),
            case("half a status line", "HTTP/1.1 20", failed(BROKEN_OFF)),
            case(
                "half a head",
                "HTTP/1.1 200 OK\r\nx: y\r\n",
                failed(BROKEN_OFF),
            ),
            case("half a body", HALF, cut(200, BROKEN_OFF, "half")),
            case(
                "chunks without an end",
                chunked("4\r\nhalf\r\n"),
                cut(200, BROKEN_OFF, "half"),
            ),
            case(
                "half of a refusal",
                "HTTP/1.1 500 X\r\ncontent-length: 10\r\n\r\nhalf",
                rejected(500, "half"),
            ),
            scripted("reset at once", reset(vec![]), unsent(BROKEN_OFF)),
            scripted(
                "reset within the request",
                reset(vec![Step::ReadSome]),
                failed(BROKEN_OFF),
            ),
            scripted(
                "reset instead of an answer",
                reset(vec![Step::Read]),
                failed(BROKEN_OFF),
            ),
        ]
    })
    .await;
}

#[tokio::test]
async fn that_come_too_slowly() {
    check_both(|| {
        let drip = |text: &str| Step::Drip(text.into(), Duration::from_millis(100));
        let then_nothing = |start: &str| vec![Step::Read, Step::write(start), Step::Hang];
        let long = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
        let interim = vec![
            Step::Read,
            drip(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(10)),
        ];
        vec![
            scripted(
                "nothing, and nothing read",
                vec![Step::Hang],
                unsent(NO_ANSWER),
            )
            .slow(),
            scripted("nothing", vec![Step::Read, Step::Hang], failed(NO_ANSWER)).slow(),
            scripted(
                "half a head",
                then_nothing("HTTP/1.1 200 OK\r\n"),
                failed(NO_ANSWER),
            )
            .slow(),
            scripted(
                "half a body",
                then_nothing(HALF),
                cut(200, UNFINISHED, "half"),
            )
            .slow(),
            scripted(
                "a chunk without its rest",
                then_nothing(&chunked("4\r\nhalf\r\n")),
                cut(200, UNFINISHED, "half"),
            )
            .slow(),
            scripted(
                "a head byte by byte",
                vec![Step::Read, drip(HALF)],
                failed(NO_ANSWER),
            )
            .slow(),
            scripted(
                "a body byte by byte",
                vec![Step::Read, Step::write(long), drip(&" ".repeat(1000))],
                cut(200, UNFINISHED, ""),
            )
            .slow(),
            scripted("interim answers for ever", interim, failed(NO_ANSWER)).slow(),
            scripted(
                "half of a refusal",
                then_nothing("HTTP/1.1 500 X\r\ncontent-length: 10\r\n\r\nhalf"),
                rejected(500, "half"),
            )
            .slow(),
        ]
    })
    .await;
}

fn chunked(chunks: &str) -> String {
    CHUNKED.to_owned() + chunks
}

#[tokio::test]
async fn that_are_no_http() {
    check_both(|| {
        let bad_head = |name, lines: &str| -> Case {
            case(
                name,
                format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\nbody"),
                failed(NOT_HTTP),
            )
        };
        let many = "x: y\r\n".repeat(150);
        vec![
            case(
                "another protocol",
                "SSH-2.0-OpenSSH_9.9\r\n\r\n",
                failed(NOT_HTTP),
            ),
            case("HTTP/0.9", "<html>hello</html>\r\n", failed(NOT_HTTP)),
            case(
                "HTTP/2 out of the blue",
                "\0\0\0\x04\0\0\0\0\0\0\0\0\0",
                failed(NOT_HTTP),
            ),
            case(
                "a request",
                "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
                failed(NOT_HTTP),
            ),
            bad_head("a length that is none", "content-length: ten"),
            bad_head("a length below zero", "content-length: -1"),
            bad_head(
                "a length that fits nowhere",
                "content-length: 99999999999999999999999",
            ),
            bad_head("two lengths", "content-length: 4\r\ncontent-length: 5"),
            bad_head("a header without a name", ": x"),
            bad_head("a header that is folded", "x: y\r\n z"),
            bad_head("a zero byte in a header", "x: \0"),
            case(
                "too many headers",
                format!("HTTP/1.1 200 X\r\n{many}\r\n"),
                failed(NOT_HTTP),
            ),
            case(
                "a huge header",
                format!("HTTP/1.1 200 X\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)),
                failed(NOT_HTTP),
            ),
            case(
                "a chunk's size that is none",
                chunked("x\r\n"),
                cut(200, NOT_HTTP, ""),
            ),
            case(
                "a chunk without a size",
                chunked("\r\nhalf\r\n"),
                cut(200, NOT_HTTP, ""),
            ),
            case(
                "a chunk too long",
                chunked("2\r\nhalf\r\n0\r\n\r\n"),
                cut(200, NOT_HTTP, "ha"),
            ),
            case(
                "a chunk's size that fits nowhere",
                chunked("fffffffffffffffff\r\nx"),
                cut(200, NOT_HTTP, ""),
            ),
        ]
    })
    .await;
}
