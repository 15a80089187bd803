import assert from 'node:assert/strict'
import { test } from 'node:test'
import { utf8Bytes } from '#base/bytes.ts'
import { FrameReader, FrameWriter, maxFrameBytes } from './frame.ts'

/** What one turn's worth of `send` puts on the wire. */
async function written(send: (writer: FrameWriter) => void): Promise<Uint8Array[]> {
  const writes: Uint8Array[] = []
  send(new FrameWriter((bytes) => writes.push(bytes)))
  await Promise.resolve()
  return writes
}

const owned = (reader: FrameReader, chunk: Uint8Array) =>
  reader.read(chunk).map(({ kind, id, body }) => ({ kind, id, body: body.toHex() }))

test('FrameWriter sends the frames of one turn in one write', async () => {
  const writes = await written((writer) => {
    writer.send(2, 7, utf8Bytes('a'), utf8Bytes('b'))
    writer.send(3, 0xffffffff)
  })
  assert.equal(writes.length, 1)
  assert.equal(writes[0]?.toHex(), '000000070200000007616200000005' + '03ffffffff')
})

test('FrameWriter refuses a frame over the limit', async () => {
  await assert.rejects(
    written((writer) => writer.send(1, 1, new Uint8Array(maxFrameBytes))),
    RangeError,
  )
})

test('FrameReader gives the same frames however the stream is cut', async () => {
  const [stream] = await written((writer) => {
    writer.send(1, 1, utf8Bytes('first'))
    writer.send(2, 2)
    writer.send(3, 3, new Uint8Array(300).fill(9))
  })
  assert.ok(stream)
  const whole = owned(new FrameReader(), stream)
  assert.equal(whole.length, 3)
  for (let cut = 0; cut <= stream.length; cut++) {
    const reader = new FrameReader()
    const frames: unknown[] = [
      ...owned(reader, stream.subarray(0, cut)),
      ...owned(reader, stream.subarray(cut)),
    ]
    assert.deepEqual(frames, whole, `cut at ${cut}`)
  }
  const bytewise = new FrameReader()
  assert.deepEqual(
    [...stream].flatMap((byte) => owned(bytewise, Uint8Array.of(byte))),
    whole,
  )
})

test('FrameReader refuses a length out of bounds before it holds the body', () => {
  for (const length of ['00000000', '00000004', '00100001', 'ffffffff']) {
    assert.throws(() => new FrameReader().read(Uint8Array.fromHex(length)), RangeError, length)
  }
})

test('FrameReader accepts the longest frame', async () => {
  const [stream] = await written((writer) => writer.send(1, 1, new Uint8Array(maxFrameBytes - 5)))
  assert.ok(stream)
  const reader = new FrameReader()
  assert.equal(reader.read(stream)[0]?.body.length, maxFrameBytes - 5)
})
