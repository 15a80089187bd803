import assert from 'node:assert/strict'
import { buffer } from 'node:stream/consumers'
import { describe, it } from 'node:test'
import { concatBytes, utf8Bytes } from '#base/bytes.ts'
import { isFromGrpcJava, SocketPathAuthority } from './socket-path-authority.ts'

const preface = utf8Bytes('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
const endHeaders = 4

function frame(type: number, payload: Uint8Array, flags = 0): Uint8Array {
  const length = payload.length
  return concatBytes(
    Uint8Array.of(length >> 16, (length >> 8) & 0xff, length & 0xff, type, flags, 0, 0, 0, 1),
    payload,
  )
}

const setting = (id: number, value: number): Uint8Array => Uint8Array.of(0, id, 0, 0, 0, value)

/** As gRPC's Java library begins: no push, no streams of the server's. */
const javaStart = concatBytes(preface, frame(4, concatBytes(setting(2, 0), setting(3, 0))))

/** An uncompressed string of less than 127 bytes. */
const text = (value: string): Uint8Array =>
  concatBytes(Uint8Array.of(value.length), utf8Bytes(value))

/** `:method POST` by index, the rest as literals that are added to the table. */
const headers = (authority: Uint8Array): Uint8Array =>
  concatBytes(
    Uint8Array.of(0x83),
    Uint8Array.of(0x44),
    text('/spiffe.workload.SpiffeWorkloadAPI/FetchX509SVID'),
    authority,
    Uint8Array.of(0x40),
    text('te'),
    text('trailers/x'),
  )

const byIndex = (value: string): Uint8Array => concatBytes(Uint8Array.of(0x41), text(value))
const byName = (value: string): Uint8Array =>
  concatBytes(Uint8Array.of(0x00), text(':authority'), text(value))
const path = '/run/spire/agent/public/api.sock'
const allowed = '-run-spire-agent-public-api.sock'

async function passed(...chunks: readonly Uint8Array[]): Promise<Uint8Array> {
  const stream = new SocketPathAuthority()
  const result = buffer(stream)
  for (const chunk of chunks) stream.write(chunk.slice())
  stream.end()
  return new Uint8Array(await result)
}

describe('SocketPathAuthority', () => {
  const data = frame(0, utf8Bytes('a/b'))
  for (const [how, literal] of [
    ['the index of the name', byIndex],
    ['the name', byName],
  ] as const) {
    it(`puts hyphens into an authority by ${how}, and changes nothing else, however it is cut`, async () => {
      const whole = (value: string): Uint8Array =>
        concatBytes(javaStart, frame(1, headers(literal(value)), endHeaders), data)
      const given = whole(path)
      const wanted = whole(allowed)
      for (let cut = 1; cut < given.length; cut++) {
        assert.deepEqual(await passed(given.subarray(0, cut), given.subarray(cut)), wanted)
      }
      const single = [...given].map((byte) => Uint8Array.of(byte))
      assert.deepEqual(await passed(...single), wanted)
    })
  }

  it('finds the headers behind padding and a priority', async () => {
    const whole = (value: string): Uint8Array =>
      concatBytes(
        javaStart,
        frame(
          1,
          concatBytes(
            Uint8Array.of(2, 0, 0, 0, 0, 16),
            headers(byIndex(value)),
            Uint8Array.of(0, 0),
          ),
          endHeaders | 0x28,
        ),
      )
    assert.deepEqual(await passed(whole(path)), whole(allowed))
  })

  it('leaves an authority that is no path, and one that is compressed', async () => {
    const compressed = concatBytes(Uint8Array.of(0x41, 0x82, 0x2f, 0x2f))
    for (const authority of [byIndex('localhost/x'), compressed]) {
      const given = concatBytes(javaStart, frame(1, headers(authority), endHeaders))
      assert.deepEqual(await passed(given), given)
    }
  })

  it('passes what is malformed for the HTTP/2 library to refuse, and ends', async () => {
    for (const block of [
      Uint8Array.of(0x41),
      Uint8Array.of(0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff),
      Uint8Array.of(0x41, 0x7e, 0x2f),
      Uint8Array.of(0x7f, 0xff, 0xff, 0xff),
      new Uint8Array(),
    ]) {
      const given = concatBytes(javaStart, frame(1, block, endHeaders))
      const { length } = await passed(given)
      assert.equal(length, given.length)
    }
    assert.deepEqual(
      await passed(javaStart, frame(1, Uint8Array.of(200, 0x41), endHeaders | 8)),
      concatBytes(javaStart, frame(1, Uint8Array.of(200, 0x41), endHeaders | 8)),
    )
  })
})

describe('isFromGrpcJava()', () => {
  it('tells by the first settings', () => {
    assert.equal(isFromGrpcJava(javaStart), true)
    for (const other of [
      new Uint8Array(),
      preface,
      javaStart.subarray(0, -1),
      concatBytes(preface, frame(4, new Uint8Array())),
      concatBytes(preface, frame(4, setting(3, 100))),
      concatBytes(preface, frame(6, setting(3, 0))),
      utf8Bytes('GET / HTTP/1.1\r\nHost: a-name-that-makes-it-long-enough\r\n\r\n'),
    ]) {
      assert.equal(isFromGrpcJava(other), false)
    }
  })
})
