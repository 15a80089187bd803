// A worker thread that plays an agent which was taken over: as many connections as it gets, each full of the largest
// requests that the server takes, again and again. It goes on until it is terminated.
import { connect } from 'node:http2'
import { workerData } from 'node:worker_threads'

const { port, key, cert, connections, streams, bytes } = workerData as {
  readonly port: number
  readonly key: string
  readonly cert: string
  readonly connections: number
  readonly streams: number
  readonly bytes: number
}

/** A batch of empty items: each takes two bytes, and much more once it is decoded. */
const message = new Uint8Array(5 + bytes).map((_, i) => (i > 4 && i % 2 === 1 ? 0x0a : 0))
new DataView(message.buffer).setUint32(1, bytes)

function open(): void {
  const session = connect(`https://127.0.0.1:${port}`, { key, cert, rejectUnauthorized: false })
  session.on('error', () => {})
  session.on('close', () => setTimeout(open, 100))
  session.on('connect', () => {
    for (let i = 0; i < streams; i++) call()
  })
  function call(): void {
    if (session.closed || session.destroyed) return
    const stream = session.request({
      ':method': 'POST',
      ':path': '/spire.api.server.svid.v1.SVID/BatchNewX509SVID',
      'content-type': 'application/grpc',
      te: 'trailers',
    })
    stream.on('error', () => {})
    stream.on('close', () => setTimeout(call, 20))
    stream.resume()
    stream.end(message)
  }
}

for (let i = 0; i < connections; i++) open()
