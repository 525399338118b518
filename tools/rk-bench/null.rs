//! A server that answers every request at once and keeps nothing: what remains of a measurement
//! against it is the generator's own cost.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use bytes::{BufMut, BytesMut};

use ringkeeper::model::SessionId;
use ringkeeper::wire::connect::ConnectResponse;
use ringkeeper::wire::opcode;

const READ_BYTES: usize = 256 * 1024;

/// Serves until the process is ended.
pub(crate) fn serve(listen: SocketAddr) -> Result<(), String> {
    let listener = TcpListener::bind(listen).map_err(|error| format!("{listen}: {error}"))?;
    eprintln!("answering on {listen}");
    for stream in listener.incoming() {
        let stream = stream.map_err(|error| format!("{listen}: {error}"))?;
        thread::spawn(move || {
            // A client that goes away is the usual end.
            let _ended = answer(stream);
        });
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut scratch = vec![0; READ_BYTES];
    let mut input = BytesMut::new();
    let mut output = BytesMut::new();
    let mut live = false;
    loop {
        let got = stream.read(&mut scratch)?;
        if got == 0 {
            return Ok(());
        }
        input.extend_from_slice(&scratch[..got]);
        while let Some(len) = input.first_chunk::<4>() {
            let len = u32::from_be_bytes(*len) as usize;
            if input.len() < 4 + len {
                break;
            }
            let frame = input.split_to(4 + len).split_off(4);
            if live {
                reply(&frame, &mut output);
            } else {
                live = true;
                let response = ConnectResponse {
                    timeout_ms: 30_000,
                    session: SessionId(1),
                    password: [0; 16],
                    read_only: false,
                    has_read_only: true,
                };
                response.encode(&mut output);
            }
        }
        stream.write_all(&output)?;
        output.clear();
    }
}

/// A header without an error, and an empty body where a client expects none.
fn reply(frame: &[u8], output: &mut BytesMut) {
    let (Some(xid), Some(number)) = (frame.first_chunk::<4>(), frame.get(4..8)) else { return };
    let is_get = number == opcode::GET_DATA.to_be_bytes();
    let body: &[u8] = if is_get { &[0; 4 + 100 + 68] } else { &[0; 68] };
    output.put_u32(u32::try_from(16 + body.len()).expect("it is short"));
    output.put_slice(xid);
    output.put_i64(1);
    output.put_i32(0);
    output.put_slice(body);
}
