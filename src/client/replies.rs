//! The bodies of replies as values (`client-protocol.md` 4.2 and 6.2).

use bytes::Bytes;

use crate::base::Str;
use crate::model::{Acl, ErrorCode, Stat};
use crate::wire::jute::{DecodeError, DecodeErrorKind, Reader};
use crate::wire::opcode;
use crate::wire::response::MultiResult;

/// Data and stat of getData.
///
/// # Errors
/// The bytes are not that.
pub fn data_and_stat(body: &mut Reader) -> Result<(Option<Bytes>, Stat), DecodeError> {
    Ok((body.buffer("data")?, body.stat()?))
}

/// ACL and stat of getACL.
///
/// # Errors
/// The bytes are not that.
pub fn acl_and_stat(body: &mut Reader) -> Result<(Vec<Acl>, Stat), DecodeError> {
    Ok((body.acls()?, body.stat()?))
}

/// Names of getChildren, paths of getEphemerals.
///
/// # Errors
/// The bytes are not that.
pub fn strings(body: &mut Reader) -> Result<Vec<Str>, DecodeError> {
    Ok(body.vector("strings", |body| body.some_str("string"))?.unwrap_or_default())
}

/// Scheme and user of each identity, the answer to whoAmI.
///
/// # Errors
/// The bytes are not that.
pub fn identities(body: &mut Reader) -> Result<Vec<(Str, Str)>, DecodeError> {
    let identities =
        body.vector("identities", |body| Ok((body.some_str("scheme")?, body.some_str("user")?)))?;
    Ok(identities.unwrap_or_default())
}

/// The results of a multi, or the code of each op if it failed: 0 before the op that is to blame,
/// RUNTIME_INCONSISTENCY behind it.
///
/// # Errors
/// The bytes are not that.
pub fn multi(body: &mut Reader) -> Result<Result<Vec<MultiResult>, Vec<ErrorCode>>, DecodeError> {
    let mut results = Vec::new();
    let mut codes = Vec::new();
    loop {
        let number = body.i32("type")?;
        let done = body.bool("done")?;
        body.i32("err")?;
        if done {
            return Ok(if codes.is_empty() { Ok(results) } else { Err(codes) });
        }
        match number {
            opcode::CREATE => results.push(MultiResult::Create { path: body.some_str("path")? }),
            opcode::CREATE2 => results
                .push(MultiResult::Create2 { path: body.some_str("path")?, stat: body.stat()? }),
            opcode::DELETE => results.push(MultiResult::Delete),
            opcode::SET_DATA => results.push(MultiResult::SetData(body.stat()?)),
            opcode::CHECK => results.push(MultiResult::Check),
            -1 => codes.push(ErrorCode(body.i32("code")?)),
            other => return Err(body.error("type", DecodeErrorKind::Unknown(other))),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::wire::response;

    #[test]
    fn what_servers_encode_is_read_back() {
        let mut buf = BytesMut::new();
        let results = vec![
            MultiResult::Create { path: "/a".into() },
            MultiResult::Create2 { path: "/b".into(), stat: Stat::default() },
            MultiResult::Delete,
            MultiResult::SetData(Stat { version: 3, ..Stat::default() }),
            MultiResult::Check,
        ];
        results.iter().for_each(|result| response::multi_result(&mut buf, result));
        response::multi_end(&mut buf);
        assert_eq!(multi(&mut Reader::new(&buf.split().freeze())), Ok(Ok(results)));
        let codes = vec![ErrorCode::OK, ErrorCode::NO_NODE, ErrorCode::RUNTIME_INCONSISTENCY];
        codes.iter().for_each(|code| response::multi_error(&mut buf, *code));
        response::multi_end(&mut buf);
        assert_eq!(multi(&mut Reader::new(&buf.split().freeze())), Ok(Err(codes)));
        response::strings(&mut buf, ["x", "y"].into_iter());
        let names = strings(&mut Reader::new(&buf.split().freeze()));
        assert_eq!(names, Ok(vec!["x".into(), "y".into()]));
        assert!(
            multi(&mut Reader::new(&Bytes::from_static(&[0, 0, 0, 99, 0, 0, 0, 0, 0]))).is_err()
        );
        assert!(multi(&mut Reader::new(&Bytes::new())).is_err());
    }
}
