import { stringMember } from '#pki/json.ts'
import { parseCompactJws } from '#pki/jws.ts'
import type { NewJWTSVIDResponse } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import type { JwtSvid } from '../manager/jwt-svid-cache.ts'

/** @throws SyntaxError when the answer lacks the token or its times. */
export function jwtSvidFrom({ svid }: NewJWTSVIDResponse): JwtSvid {
  if (svid === undefined || svid.token === '')
    throw new SyntaxError('invalid JWT-SVID: it is empty')
  const { token, issuedAt, expiresAt } = svid
  if (issuedAt === 0 || expiresAt < issuedAt) {
    throw new SyntaxError('invalid JWT-SVID: it ends before it begins, or does not say when')
  }
  return {
    token,
    keyId: stringMember(parseCompactJws(token).header, 'kid') ?? '',
    issuedAtSeconds: issuedAt,
    expiresAtSeconds: expiresAt,
  }
}
