import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Health } from './health.ts'
import type { Metrics } from './metrics.ts'

/** What a route answers. */
export interface HttpAnswer {
  readonly status: number
  readonly contentType: string
  readonly body: string
}

/** Answers `GET` (and `HEAD`) of one path. */
export type HttpRoute = () => HttpAnswer | Promise<HttpAnswer>

/** A listener for probes and scrapers. Disposing closes it and its connections. */
export interface HttpListener extends AsyncDisposable {
  /** The port it listens on, also when it was asked for port 0. */
  readonly port: number
}

/** `/live` and `/ready`, 200 or 503, with the state of every part as JSON. */
export function healthRoutes(
  health: Health,
  paths: { readonly live?: string; readonly ready?: string } = {},
): ReadonlyMap<string, HttpRoute> {
  const answer = (isOk: (report: ReturnType<Health['report']>) => boolean): HttpAnswer => {
    const report = health.report()
    return {
      status: isOk(report) ? 200 : 503,
      contentType: 'application/json',
      body: `${JSON.stringify(report)}\n`,
    }
  }
  return new Map([
    [paths.live ?? '/live', () => answer(({ live }) => live)],
    [paths.ready ?? '/ready', () => answer(({ ready }) => ready)],
  ])
}

/** `/metrics` in Prometheus' text format. */
export function metricsRoutes(metrics: Metrics): ReadonlyMap<string, HttpRoute> {
  return new Map([
    [
      '/metrics',
      async () => ({
        status: 200,
        contentType: metrics.contentType,
        body: await metrics.exposition(),
      }),
    ],
  ])
}

/**
 * Serves `routes` over plain HTTP: for probes and scrapers on the machine or a network that is trusted.
 *
 * @throws AssayError `unavailable` when the address cannot be listened on.
 */
export async function listenHttp(options: {
  readonly address: string
  /** Zero: the system chooses. */
  readonly port: number
  readonly routes: ReadonlyMap<string, HttpRoute>
  readonly log: Log
}): Promise<HttpListener> {
  const { address, port, routes, log } = options
  const server = createServer(
    { maxHeaderSize: 8192, headersTimeout: 5000, requestTimeout: 5000, keepAliveTimeout: 5000 },
    (request, response) => {
      // Never rejects: it answers 500 instead.
      void serve(request, response, { routes, log })
    },
  )
  server.maxConnections = 64
  server.maxRequestsPerSocket = 1000
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => reject(cannotListen(address, port, cause)))
    server.listen({ host: address, port }, resolve)
  })
  server.on('error', (error) => log.error({ error }, 'HTTP listener failed'))
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  { routes, log }: { readonly routes: ReadonlyMap<string, HttpRoute>; readonly log: Log },
): Promise<void> {
  const [path = ''] = (request.url ?? '').split('?', 1)
  const { status, contentType, body } = await answerTo(request.method ?? '', routes.get(path), log)
  response.writeHead(status, {
    'content-type': contentType,
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  })
  response.end(request.method === 'HEAD' ? undefined : body)
}

async function answerTo(
  method: string,
  route: HttpRoute | undefined,
  log: Log,
): Promise<HttpAnswer> {
  const plain = (status: number, body: string): HttpAnswer => ({
    status,
    contentType: 'text/plain; charset=utf-8',
    body: `${body}\n`,
  })
  if (route === undefined) return plain(404, 'not found')
  if (method !== 'GET' && method !== 'HEAD') return plain(405, 'only GET is allowed')
  try {
    return await route()
  } catch (error) {
    log.error({ error }, 'HTTP request failed')
    return plain(500, 'internal error')
  }
}

function cannotListen(address: string, port: number, cause: unknown): AssayError {
  return new AssayError(
    'unavailable',
    `cannot listen on ${address} port ${port}: ${messageOf(cause)}; choose another in the configuration`,
    { reason: 'address-unavailable', cause },
  )
}
