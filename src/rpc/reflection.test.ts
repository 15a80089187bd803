import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { fromBinary } from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt'
import { serve } from '../../test/support/rpc.ts'
import type { BidiCall } from './client.ts'
import {
  ServerReflectionDefinition as ReflectionV1,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
} from './gen/grpc/reflection/v1/reflection.ts'
import { ServerReflectionDefinition as ReflectionV1Alpha } from './gen/grpc/reflection/v1alpha/reflection.ts'
import { addReflection } from './reflection.ts'

type Ask = NonNullable<ServerReflectionRequest['messageRequest']>
type Answer = ServerReflectionResponse['messageResponse']

async function ask(
  call: BidiCall<ServerReflectionRequest, ServerReflectionResponse>,
  messageRequest: Ask,
): Promise<Answer> {
  await call.send({ messageRequest })
  return (await call.receive())?.messageResponse
}

function filesOf(answer: Answer): string[] {
  assert.equal(answer?.$case, 'fileDescriptorResponse')
  return answer.value.fileDescriptorProto.map(
    (bytes) => fromBinary(FileDescriptorProtoSchema, bytes).name,
  )
}

describe('addReflection()', () => {
  for (const [version, definition] of [
    ['v1', ReflectionV1],
    ['v1alpha', ReflectionV1Alpha],
  ] as const) {
    it(`${version}: lists the services, and finds files by name and by symbol with what they import`, async () => {
      await using served = await serve({ agent: {}, health: {} }, addReflection)
      using call = served.connection.client(definition).serverReflectionInfo()
      const list = await ask(call, { $case: 'listServices', value: '' })
      assert.equal(list?.$case, 'listServicesResponse')
      assert.deepEqual(
        list.value.service.map(({ name }) => name),
        [
          'spire.api.server.agent.v1.Agent',
          'grpc.health.v1.Health',
          'grpc.reflection.v1.ServerReflection',
          'grpc.reflection.v1alpha.ServerReflection',
        ],
      )
      const path = 'spire/api/server/agent/v1/agent.proto'
      for (const value of [
        'spire.api.server.agent.v1.Agent',
        'spire.api.server.agent.v1.Agent.AttestAgent',
        'spire.api.server.agent.v1.AttestAgentRequest.Params',
      ]) {
        const files = filesOf(await ask(call, { $case: 'fileContainingSymbol', value }))
        assert.equal(files[0], path)
        assert.ok(files.includes('spire/api/types/spiffeid.proto'))
        assert.ok(files.includes('google/protobuf/empty.proto'))
        assert.equal(new Set(files).size, files.length)
      }
      assert.equal(filesOf(await ask(call, { $case: 'fileByFilename', value: path }))[0], path)
    })
  }

  it('finds the Workload API, which has no package', async () => {
    await using served = await serve({ workload: {} }, addReflection)
    using call = served.connection.client(ReflectionV1).serverReflectionInfo()
    const answer = await ask(call, { $case: 'fileContainingSymbol', value: 'SpiffeWorkloadAPI' })
    assert.deepEqual(filesOf(answer), [
      'spiffe/workload/workload.proto',
      'google/protobuf/struct.proto',
    ])
  })

  it('answers NOT_FOUND for what is not there, and goes on', async () => {
    await using served = await serve({ health: {} }, addReflection)
    using call = served.connection.client(ReflectionV1).serverReflectionInfo()
    const extension = { containingType: 'x', extensionNumber: 1 }
    for (const request of [
      { $case: 'fileByFilename', value: '../../etc/passwd' },
      { $case: 'fileContainingSymbol', value: '' },
      { $case: 'fileContainingSymbol', value: 'no.such.Thing' },
      { $case: 'fileContainingExtension', value: extension },
      { $case: 'allExtensionNumbersOfType', value: 'x' },
    ] as const) {
      const answer = await ask(call, request)
      assert.equal(answer?.$case, 'errorResponse')
      assert.equal(answer.value.errorCode, 5)
    }
  })
})
