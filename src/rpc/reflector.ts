import {
  createFileRegistry,
  type DescFile,
  type FileRegistry,
  fromBinary,
  toBinary,
} from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt'
import { status } from '@grpc/grpc-js'
import { descriptorSet } from './gen/descriptor-set.ts'
import type {
  ServerReflectionRequest,
  ServerReflectionResponse,
} from './gen/grpc/reflection/v1/reflection.ts'

type Answer = ServerReflectionResponse['messageResponse']

/** Answers questions about the services of one server and about every .proto file of ours. */
export class Reflector {
  readonly #services: readonly string[]
  readonly #registry: FileRegistry = createFileRegistry(
    fromBinary(FileDescriptorSetSchema, Uint8Array.fromBase64(descriptorSet)),
  )

  constructor(services: readonly string[]) {
    this.#services = services
  }

  answer(request: ServerReflectionRequest['messageRequest']): Answer {
    switch (request?.$case) {
      case 'listServices':
        return {
          $case: 'listServicesResponse',
          value: { service: this.#services.map((name) => ({ name })) },
        }
      case 'fileByFilename':
        return fileAnswer(this.#registry.getFile(request.value), `file ${request.value}`)
      case 'fileContainingSymbol':
        return fileAnswer(this.#fileOf(request.value), `symbol ${request.value}`)
      case 'fileContainingExtension':
      case 'allExtensionNumbersOfType':
        return errorAnswer(status.NOT_FOUND, 'there are no extensions')
      case undefined:
        return errorAnswer(status.INVALID_ARGUMENT, 'the request asks for nothing')
    }
  }

  /** A method or field is found by the name before its last dot. */
  #fileOf(symbol: string): DescFile | undefined {
    const container = symbol.slice(0, Math.max(0, symbol.lastIndexOf('.')))
    return (this.#registry.get(symbol) ?? this.#registry.get(container))?.file
  }
}

/** A file and everything it imports, each once. */
function fileAnswer(file: DescFile | undefined, what: string): Answer {
  if (file === undefined) return errorAnswer(status.NOT_FOUND, `there is no ${what}`)
  const files = new Set<DescFile>([file])
  for (const found of files) for (const imported of found.dependencies) files.add(imported)
  const fileDescriptorProto = [...files].map(({ proto }) =>
    toBinary(FileDescriptorProtoSchema, proto),
  )
  return { $case: 'fileDescriptorResponse', value: { fileDescriptorProto } }
}

function errorAnswer(errorCode: status, errorMessage: string): Answer {
  return { $case: 'errorResponse', value: { errorCode, errorMessage } }
}
