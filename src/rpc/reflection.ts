import {
  ServerReflectionDefinition as ReflectionV1,
  type ServerReflectionRequest,
  ServerReflectionResponse,
} from './gen/grpc/reflection/v1/reflection.ts'
import { ServerReflectionDefinition as ReflectionV1Alpha } from './gen/grpc/reflection/v1alpha/reflection.ts'
import type { Reflector } from './reflector.ts'
import type { RpcServer } from './server.ts'

/**
 * Adds gRPC server reflection, versions v1 and v1alpha, so that tools such as grpcurl need no .proto files. It
 * lists exactly the services that `server` has. Call it after the other services were added.
 */
export function addReflection(server: RpcServer): void {
  const services = [...server.serviceNames, ReflectionV1.fullName, ReflectionV1Alpha.fullName]
  let reflector: Promise<Reflector> | undefined
  const serverReflectionInfo = async function* (requests: AsyncIterable<ServerReflectionRequest>) {
    // Most servers are never asked, and what it takes to answer is 5 MB of memory.
    reflector ??= import('./reflector.ts').then((module) => new module.Reflector(services))
    const known = await reflector
    for await (const request of requests) {
      yield ServerReflectionResponse.fromPartial({
        validHost: request.host,
        originalRequest: request,
        messageResponse: known.answer(request.messageRequest),
      })
    }
  }
  server.addService(ReflectionV1, { serverReflectionInfo })
  server.addService(ReflectionV1Alpha, { serverReflectionInfo })
}
