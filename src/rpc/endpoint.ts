import { isIP } from 'node:net'

/** Where a Workload API is served (SPIFFE Workload Endpoint §4). */
export type Endpoint =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly address: string; readonly port: number }

/** `sun_path` of a Unix socket address is 108 bytes, the last of which ends it. */
export const maxSocketPathBytes = 107

/**
 * Parses `unix:///absolute/path` or `tcp://IP:port`, the two forms of SPIFFE_ENDPOINT_SOCKET.
 *
 * @throws SyntaxError for every other scheme and for a part the form does not have: an authority or a relative
 *   path with unix; a host name, a path or a missing port with tcp; user, query or fragment with either.
 */
export function parseEndpoint(text: string): Endpoint {
  const bad = (why: string): SyntaxError => new SyntaxError(`invalid endpoint '${text}': ${why}`)
  if (text.startsWith('unix:')) {
    if (!text.startsWith('unix:///')) throw bad('write it as unix:///path/to/socket')
    if (/[?#]/.test(text)) throw bad('it has a query or fragment')
    const path = percentDecoded(text.slice('unix://'.length))
    if (path === undefined) throw bad('a % is not followed by two hexadecimal digits of UTF-8')
    if (path.includes('\0')) throw bad('its path holds a null character')
    if (path.endsWith('/')) throw bad('it names no socket')
    if (new TextEncoder().encode(path).length > maxSocketPathBytes) {
      throw bad(`its path is longer than the ${maxSocketPathBytes} bytes a socket address holds`)
    }
    return { kind: 'unix', path }
  }
  if (!text.startsWith('tcp:')) throw bad('its scheme is neither unix nor tcp')
  const match = /^tcp:\/\/(?:\[([^\]]+)\]|([^:/?#@[\]]+)):(\d{1,5})$/.exec(text)
  if (match === null) throw bad('write it as tcp://IP:port')
  const [, bracketed, plain = '', port = ''] = match
  const address = bracketed ?? plain
  if (isIP(address) !== (bracketed === undefined ? 4 : 6)) {
    throw bad(`'${address}' is not an IP address`)
  }
  if (Number(port) < 1 || Number(port) > 65535) throw bad(`${port} is not a port`)
  return { kind: 'tcp', address, port: Number(port) }
}

function percentDecoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}
