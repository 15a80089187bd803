// What any user of the machine can do with a socket that is open to all, before a call is made.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import process from 'node:process'
import { it } from 'node:test'
import { concatBytes, utf8Bytes } from '#base/bytes.ts'
import {
  keepingLog,
  type Logged,
  newServer,
  temporaryFolder,
  until,
} from '../../test/support/rpc.ts'

/** As gRPC's Java library begins: SETTINGS that allow the server no streams. */
const javaStart = concatBytes(
  utf8Bytes('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  Uint8Array.of(0, 0, 6, 4, 0, 0, 0, 0, 0),
  Uint8Array.of(0, 3, 0, 0, 0, 0),
)

async function connected(path: string): Promise<Socket> {
  const socket = connect(path)
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

/** The soft limit of this process. */
const limitDescriptors = (limit: string): void =>
  void execFileSync('prlimit', [`--pid=${process.pid}`, `--nofile=${limit}:`])

/** As many as leave no number free. */
function fewestDescriptors(): string {
  const open = new Set(readdirSync('/proc/self/fd').map(Number))
  let free = 0
  while (open.has(free)) free += 1
  return String(free)
}

function descriptorLimit(): string {
  const args = [`--pid=${process.pid}`, '--nofile', '--raw', '--noheadings', '--output=SOFT']
  return execFileSync('prlimit', args, { encoding: 'utf8' }).trim()
}

it('a connection that needs descriptors of which there are no more is closed, and the others are served', async () => {
  using folder = temporaryFolder()
  const lines: Logged[] = []
  await using server = newServer(keepingLog(lines))
  const path = join(folder.path, 's')
  await server.listenUnix({ path, mode: 0o777 })
  const before = descriptorLimit()
  const clients = await Promise.all(Array.from({ length: 8 }, () => connected(path)))
  await until(() => server.connections === 8)
  try {
    limitDescriptors(fewestDescriptors())
    for (const client of clients) client.resume().write(javaStart)
    await until(() => server.connections < 8)
  } finally {
    for (const client of clients) client.destroy()
    await until(() => server.connections === 0)
    limitDescriptors(before)
  }
  assert.ok(lines.some(({ message }) => message.includes('it cannot be served')))
  const later = await connected(path)
  later.write(javaStart)
  await once(later, 'data')
  later.destroy()
})

it('a connection of a Java client makes Node warn of nothing', async () => {
  using folder = temporaryFolder()
  await using server = newServer()
  const path = join(folder.path, 's')
  await server.listenUnix({ path, mode: 0o777 })
  const warnings: Error[] = []
  const keep = (warning: Error): void => void warnings.push(warning)
  process.on('warning', keep)
  const client = await connected(path)
  client.write(javaStart)
  await once(client, 'data')
  client.destroy()
  await until(() => server.connections === 0)
  process.off('warning', keep)
  assert.deepEqual(warnings, [])
})

it('a connection that has said nothing does not hold up the end', { timeout: 3000 }, async () => {
  using folder = temporaryFolder()
  await using server = newServer()
  const path = join(folder.path, 's')
  await server.listenUnix({ path, mode: 0o777 })
  const silent = await connected(path)
  await until(() => server.connections === 1)
  await server.stop(60_000)
  silent.destroy()
})
