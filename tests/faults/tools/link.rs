//! The weak link, before a server that answers with what it was sent.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use sharp_eyes_tests::link::{Carried, Link, WINDOW, Weather};
use sharp_eyes_tests::wait;
use socket2::SockRef;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

/// A server on a port of its own, until the test process ends.
fn echo() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                std::io::copy(&mut &stream, &mut &stream).map(|_| stream.shutdown(Shutdown::Write))
            });
        }
    });
    Ok(port)
}

fn connect(link: &Link) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", link.port()))?;
    stream.set_read_timeout(Some(LONG))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends it and reads it back; says how long that took.
fn there_and_back(mut stream: &TcpStream, bytes: &[u8]) -> Result<Duration> {
    let start = Instant::now();
    let mut back = vec![0; bytes.len()];
    std::thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(move || {
            let mut stream = stream;
            stream.write_all(bytes)
        });
        stream.read_exact(&mut back)?;
        writer.join().expect("a writer does not panic")?;
        Ok(())
    })?;
    assert!(back == bytes, "other bytes came back");
    Ok(start.elapsed())
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

fn error_of(result: std::io::Result<usize>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn bytes_pass_both_ways_and_are_counted_and_the_end_passes_too() -> Result<()> {
    let link = Link::start(echo()?)?;
    let mut stream = connect(&link)?;
    let took = there_and_back(&stream, &pattern(3_000_000))?;
    assert!(took < Duration::from_secs(10), "{took:?} for 3 MB over a clear link");
    stream.shutdown(Shutdown::Write)?;
    assert_eq!(stream.read(&mut [0])?, 0, "the server's end, in good order");
    assert_eq!(link.carried(), Carried { up: 3_000_000, down: 3_000_000, connections: 1 });
    Ok(())
}

#[test]
fn delay_rate_and_handshake_take_their_time() -> Result<()> {
    let link = Link::start(echo()?)?;
    let delay = Duration::from_millis(50);
    link.set_weather(Weather { delay, ..Weather::CLEAR });
    let stream = connect(&link)?;
    let first = there_and_back(&stream, b"hello")?;
    let second = there_and_back(&stream, b"hello")?;
    assert!(first >= 4 * delay, "{first:?} for a handshake and a round trip");
    assert!(second >= 2 * delay && second < first, "{second:?} for a round trip");
    link.set_weather(Weather { up: Some(20_000), ..Weather::CLEAR });
    let other = connect(&link)?;
    let bytes = pattern(10_000);
    let start = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| there_and_back(&other, &bytes));
        there_and_back(&stream, &bytes)?;
        writer.join().unwrap()?;
        Ok(())
    })?;
    let took = start.elapsed().as_secs_f64();
    assert!((0.9..3.0).contains(&took), "{took} s for 20,000 bytes of two connections at 20,000 a second");
    Ok(())
}

#[test]
fn losses_stall_and_lose_nothing() -> Result<()> {
    let link = Link::start(echo()?)?;
    let bytes = pattern(30_000); // at least 21 segments each way
    link.set_weather(Weather { loss: 0.2, seed: 3, ..Weather::CLEAR });
    let took = there_and_back(&connect(&link)?, &bytes)?;
    assert!(took > Duration::from_millis(800), "{took:?}: some four losses of 200 ms each way are expected");
    Ok(())
}

#[test]
fn a_slow_link_holds_its_sender_back() -> Result<()> {
    let link = Link::start(echo()?)?;
    link.set_weather(Weather { up: Some(1_000), ..Weather::CLEAR });
    let mut stream = connect(&link)?;
    SockRef::from(&stream).set_send_buffer_size(16 * 1024)?;
    stream.set_write_timeout(Some(SHORT))?;
    let mut accepted = 0;
    while let Ok(length) = stream.write(&[0; 4096]) {
        accepted += length;
    }
    assert!(accepted < WINDOW + 128 * 1024, "{accepted} bytes were taken at once, at 1,000 a second");
    Ok(())
}

#[test]
fn a_cut_resets_and_new_connections_work_after_it() -> Result<()> {
    let link = Link::start(echo()?)?;
    let mut stream = connect(&link)?;
    there_and_back(&stream, b"hello")?;
    link.reset()?;
    assert_eq!(error_of(stream.read(&mut [0])), Some(ErrorKind::ConnectionReset));
    link.cut()?;
    // The reset of a new connection may come before connect returns.
    if let Ok(mut stream) = connect(&link) {
        assert_eq!(error_of(stream.read(&mut [0])), Some(ErrorKind::ConnectionReset));
    }
    link.heal()?;
    there_and_back(&connect(&link)?, b"hello")?;
    Ok(())
}

#[test]
fn half_open_is_silence_that_only_timeouts_end() -> Result<()> {
    let link = Link::start(echo()?)?;
    let (mut patient, mut watchful) = (connect(&link)?, connect(&link)?);
    there_and_back(&patient, b"hello")?;
    there_and_back(&watchful, b"hello")?;
    SockRef::from(&watchful).set_tcp_user_timeout(Some(Duration::from_secs(1)))?;
    link.half_open()?;
    let before = link.carried();
    let started = Instant::now();
    patient.write_all(b"late")?;
    watchful.write_all(b"lost")?;
    // Nothing is acknowledged: the kernel itself gives up, as on a cable that was pulled out.
    assert_eq!(error_of(watchful.read(&mut [0])), Some(ErrorKind::TimedOut));
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    let address = SocketAddr::from(([127, 0, 0, 1], link.port()));
    let error = TcpStream::connect_timeout(&address, SHORT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "a new connection is not answered");
    assert_eq!(link.carried(), before, "nothing passed");
    link.heal()?;
    let mut back = [0; 4];
    patient.read_exact(&mut back)?; // the kernel has sent it again
    assert_eq!(&back, b"late");
    there_and_back(&connect(&link)?, b"hello")?;
    Ok(())
}

#[test]
fn a_hung_broker_accepts_and_says_nothing() -> Result<()> {
    let link = Link::start(echo()?)?;
    let mut before = connect(&link)?;
    there_and_back(&before, b"hello")?;
    link.accept_and_never_answer()?;
    assert_eq!(error_of(before.read(&mut [0])), Some(ErrorKind::ConnectionReset));
    let mut stream = connect(&link)?;
    SockRef::from(&stream).set_tcp_user_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"hello")?;
    stream.set_read_timeout(Some(SHORT))?;
    assert_eq!(
        error_of(stream.read(&mut [0])),
        Some(ErrorKind::WouldBlock),
        "acknowledged by the kernel, and no more"
    );
    link.heal()?;
    stream.set_read_timeout(Some(LONG))?;
    let mut back = [0; 5];
    stream.read_exact(&mut back)?;
    assert_eq!(&back, b"hello");
    Ok(())
}

#[test]
fn nothing_is_left_of_a_dropped_link() -> Result<()> {
    let link = Link::start(echo()?)?;
    let mut stream = connect(&link)?;
    there_and_back(&stream, b"hello")?;
    let port = link.port();
    drop(link);
    assert_eq!(error_of(stream.read(&mut [0])), Some(ErrorKind::ConnectionReset));
    wait::until("the port to close", LONG, || TcpStream::connect(("127.0.0.1", port)).err())?;
    Ok(())
}
