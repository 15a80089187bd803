import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Metadata, status } from '@grpc/grpc-js'
import { AssayError, type ErrorCode } from '#base/errors.ts'
import { Status } from './gen/google/rpc/status.ts'
import { PermissionDeniedDetails } from './gen/spire/api/types/status.ts'
import { errorFromStatus, errorTrailers, requestIdOf, wireStatus } from './status.ts'

const table: readonly [ErrorCode, status][] = [
  ['invalid-argument', status.INVALID_ARGUMENT],
  ['unauthenticated', status.UNAUTHENTICATED],
  ['permission-denied', status.PERMISSION_DENIED],
  ['not-found', status.NOT_FOUND],
  ['already-exists', status.ALREADY_EXISTS],
  ['failed-precondition', status.FAILED_PRECONDITION],
  ['resource-exhausted', status.RESOURCE_EXHAUSTED],
  ['unavailable', status.UNAVAILABLE],
  ['unimplemented', status.UNIMPLEMENTED],
  ['internal', status.INTERNAL],
]

const failed = (code: status, metadata = new Metadata()) => ({ code, details: 'text', metadata })

/** A client's view of an error that a server threw. */
function acrossTheWire(error: AssayError): AssayError {
  const { code, message } = wireStatus(error)
  return errorFromStatus({ code, details: message, metadata: errorTrailers(error, 'id') })
}

describe('wireStatus() and errorFromStatus()', () => {
  for (const [code, number] of table) {
    it(`map ${code} to ${status[number]} and back`, () => {
      const error = new AssayError(code, 'text', { reason: 'some-reason' })
      assert.deepEqual(wireStatus(error), { code: number, message: 'text' })
      const back = acrossTheWire(error)
      assert.deepEqual([back.code, back.message, back.reason], [code, 'text', 'some-reason'])
      assert.equal(requestIdOf(back), 'id')
    })
  }

  it('map every code of gRPC to one of ours', () => {
    for (let code = 1; code <= 16; code++) {
      assert.ok(table.some(([own]) => own === errorFromStatus(failed(code)).code))
    }
    assert.equal(errorFromStatus(failed(99 as status)).code, 'internal')
  })

  for (const [code, own, reason] of [
    [status.CANCELLED, 'unavailable', 'cancelled'],
    [status.DEADLINE_EXCEEDED, 'unavailable', 'deadline-exceeded'],
    [status.ABORTED, 'unavailable', 'aborted'],
    [status.UNKNOWN, 'internal', 'unknown'],
    [status.OUT_OF_RANGE, 'invalid-argument', 'out-of-range'],
    [status.DATA_LOSS, 'internal', 'data-loss'],
  ] as const) {
    it(`read ${status[code]} as ${own}, reason ${reason}`, () => {
      const error = errorFromStatus(failed(code))
      assert.deepEqual([error.code, error.reason], [own, reason])
    })
  }

  it('tell nothing about an error that is not ours', () => {
    for (const error of [new Error('secret'), new TypeError('secret'), 'secret', undefined]) {
      assert.deepEqual(wireStatus(error), { code: status.INTERNAL, message: 'internal error' })
    }
  })
})

describe('errorTrailers()', () => {
  it('adds the details that SPIRE reads to a refusal of an agent', () => {
    const error = new AssayError('permission-denied', 'no', { reason: 'agent-must-reattest' })
    const [bytes] = errorTrailers(error, 'id').get('grpc-status-details-bin')
    const { code, details } = Status.decode(bytes as Uint8Array)
    assert.equal(code, status.PERMISSION_DENIED)
    assert.equal(details[0]?.typeUrl, 'type.googleapis.com/spire.api.types.PermissionDeniedDetails')
    assert.equal(PermissionDeniedDetails.decode(details[0]?.value ?? new Uint8Array()).reason, 5)
  })

  it('adds none for any other reason', () => {
    for (const reason of ['unknown', 'constructor', 'quote-nonce-mismatch']) {
      const trailers = errorTrailers(new AssayError('internal', 'no', { reason }), 'id')
      assert.deepEqual(trailers.get('grpc-status-details-bin'), [])
    }
  })
})

describe('errorFromStatus()', () => {
  it('takes the reason of a server of SPIRE from the details', () => {
    const error = new AssayError('permission-denied', 'no', { reason: 'agent-banned' })
    const metadata = errorTrailers(error, 'id')
    metadata.remove('assay-reason')
    assert.equal(errorFromStatus(failed(status.PERMISSION_DENIED, metadata)).reason, 'agent-banned')
  })

  it('passes over details that are not well-formed, and odd reasons', () => {
    const metadata = new Metadata()
    // biome-ignore lint/style/noRestrictedGlobals: grpc-js takes binary metadata as a Buffer only
    metadata.set('grpc-status-details-bin', Buffer.of(0x1a, 0xff))
    metadata.set('assay-reason', 'with spaces')
    assert.equal(errorFromStatus(failed(status.NOT_FOUND, metadata)).reason, undefined)
  })

  it('keeps what grpc-js reported as its cause', () => {
    const cause = failed(status.NOT_FOUND)
    assert.equal(errorFromStatus(cause).cause, cause)
    assert.equal(requestIdOf(errorFromStatus(cause)), undefined)
    assert.equal(requestIdOf(new Error('x')), undefined)
  })
})
