import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Asset } from './assets.ts'
import type { Sessions } from './sessions.ts'
import type { TopicMessage } from './topics.ts'

/** Where it listens: a port of 127.0.0.1, zero for any, or a Unix socket of this user alone. */
export type ListenAt =
  | { readonly kind: 'loopback'; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }

export interface HttpOptions {
  readonly assets: ReadonlyMap<string, Asset>
  readonly sessions: Pick<Sessions, 'redeem' | 'has'>
  /** What a browser is told, until the signal aborts. */
  readonly view: (signal: AbortSignal) => AsyncIterable<readonly TopicMessage[]>
  /** What is known of one node. @throws SyntaxError or AssayError. */
  readonly details: (id: string, signal: AbortSignal) => Promise<object>
  /** A link was used. */
  readonly onRedeemed: () => void
}

/** Disposing ends every connection. */
export interface HttpListener extends AsyncDisposable {
  /** The port; undefined on a Unix socket. */
  readonly port: number | undefined
}

/** Names by which a browser on this machine, or one behind a forwarded port, may call it: never a name of the DNS. */
const localHost = /^(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?$/
const maxBodyBytes = 1024

/** The page runs its own files alone, reaches nobody but this listener, and cannot be framed. */
const headers: Readonly<Record<string, string>> = {
  'content-security-policy': [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ].join('; '),
  'cache-control': 'no-store',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(), geolocation=(), microphone=()',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
}

/**
 * Serves the page to anybody who reaches the listener, and what it shows only to who has a key. A key travels in a
 * header and never in a cookie: cookies of 127.0.0.1 are sent to every port of it, also to another user's.
 *
 * @throws AssayError `unavailable` when it cannot listen there.
 */
export async function listenHttp(at: ListenAt, options: HttpOptions): Promise<HttpListener> {
  const server = createServer(
    {
      maxHeaderSize: 8192,
      headersTimeout: 5000,
      requestTimeout: 5000,
      keepAliveTimeout: 5000,
      connectionsCheckingInterval: 2000,
    },
    (request, response) => {
      // Never rejects: it answers 500 instead.
      void serve(request, response, options)
    },
  )
  server.maxConnections = 64
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => reject(cannotListen(at, cause)))
    if (at.kind === 'loopback') server.listen({ host: '127.0.0.1', port: at.port }, resolve)
    else listenUnix(server, at.path, resolve)
  })
  const address = server.address()
  return {
    port: at.kind === 'loopback' ? (address as AddressInfo).port : undefined,
    [Symbol.asyncDispose]: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** A socket that nobody else may open at any moment: its mode is there before it is. */
function listenUnix(server: ReturnType<typeof createServer>, path: string, done: () => void): void {
  const before = process.umask(0o177)
  try {
    server.listen({ path }, done)
  } finally {
    process.umask(before)
  }
}

function cannotListen(at: ListenAt, cause: unknown): AssayError {
  const where = at.kind === 'loopback' ? `127.0.0.1 port ${at.port}` : at.path
  const remedy =
    at.kind === 'loopback'
      ? 'choose another with --port, or none for any that is free'
      : 'choose another path, or remove the socket if no console serves it any more'
  return new AssayError(
    'unavailable',
    `cannot listen on ${where}: ${messageOf(cause)}; ${remedy}`,
    { reason: 'address-unavailable', cause },
  )
}

class HttpError extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  options: HttpOptions,
): Promise<void> {
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value)
  try {
    await route(request, response, options)
  } catch (error) {
    if (response.headersSent) {
      response.destroy()
      return
    }
    const status = error instanceof HttpError ? error.status : 500
    const message = error instanceof HttpError ? error.message : 'internal error'
    sendJson(response, status, { error: message })
  }
}

async function route(
  request: IncomingMessage,
  response: ServerResponse,
  options: HttpOptions,
): Promise<void> {
  const { host = '' } = request.headers
  // A page of another name that resolves to 127.0.0.1 has that name here.
  if (!localHost.test(host))
    throw new HttpError(421, 'this console answers to 127.0.0.1 and localhost only')
  const url = new URL(request.url ?? '/', 'http://console')
  const asset = options.assets.get(url.pathname)
  const isRead = request.method === 'GET' || request.method === 'HEAD'
  if (asset !== undefined) {
    if (!isRead) throw new HttpError(405, 'only GET is allowed')
    response.writeHead(200, { 'content-type': asset.contentType })
    response.end(request.method === 'HEAD' ? undefined : asset.body)
    return
  }
  if (url.pathname === '/session') {
    if (request.method !== 'POST') throw new HttpError(405, 'only POST is allowed')
    requireOwnOrigin(request, host)
    const key = options.sessions.redeem(await bodyOf(request))
    if (key === undefined) {
      throw new HttpError(403, 'this link was used already, or is not of this console')
    }
    sendJson(response, 200, { key })
    options.onRedeemed()
    return
  }
  if (url.pathname !== '/events' && url.pathname !== '/node') throw new HttpError(404, 'not found')
  if (request.method !== 'GET') throw new HttpError(405, 'only GET is allowed')
  requireOwnOrigin(request, host)
  const [scheme, key = ''] = (request.headers.authorization ?? '').split(' ')
  if (scheme !== 'Bearer' || !options.sessions.has(key)) {
    throw new HttpError(401, 'a link of this console is needed')
  }
  const gone = new AbortController()
  response.once('close', () => gone.abort(new Error('the browser has gone')))
  if (url.pathname === '/node') {
    await sendDetails(response, url.searchParams.get('id') ?? '', gone.signal, options)
  } else await sendEvents(response, gone.signal, options)
}

/** A browser says from which page a request comes; scripts of other pages have no business here. */
function requireOwnOrigin(request: IncomingMessage, host: string): void {
  const { origin, 'sec-fetch-site': site = 'same-origin' } = request.headers
  if (origin !== undefined && origin !== `http://${host}`) {
    throw new HttpError(403, 'another page has no business here')
  }
  if (site !== 'same-origin') throw new HttpError(403, 'another page has no business here')
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const decoder = new TextDecoder()
  let text = ''
  for await (const chunk of request) {
    text += decoder.decode(chunk as Uint8Array, { stream: true })
    if (text.length > maxBodyBytes) throw new HttpError(413, 'the request is too long')
  }
  return text
}

async function sendDetails(
  response: ServerResponse,
  id: string,
  signal: AbortSignal,
  { details }: HttpOptions,
): Promise<void> {
  try {
    sendJson(response, 200, await details(id.slice(0, 2048), signal))
  } catch (error) {
    signal.throwIfAborted()
    throw new HttpError(error instanceof SyntaxError ? 400 : 502, messageOf(error))
  }
}

/** Server-sent events (HTML §9.2), each with the topic as its name and JSON as its data. */
async function sendEvents(
  response: ServerResponse,
  signal: AbortSignal,
  { view }: HttpOptions,
): Promise<void> {
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  response.flushHeaders()
  for await (const messages of view(signal)) {
    const text = messages
      .map(({ topic, data }) => `event: ${topic}\ndata: ${JSON.stringify(data)}\n\n`)
      .join('')
    if (!response.write(text)) await drained(response, signal)
  }
  response.end()
}

const drained = (response: ServerResponse, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const done = (): void => {
      response.off('drain', done)
      signal.removeEventListener('abort', done)
      resolve()
    }
    response.once('drain', done)
    signal.addEventListener('abort', done, { once: true })
    if (signal.aborted) done()
  })

function sendJson(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(`${JSON.stringify(body)}\n`)
}
